"""Removal: dead units leave parameters, buffers and optimizer state, in place, and nothing else changes.

The compact network must compute what the silenced one computes. That is checked (`equivalence`) in double precision,
where the order of a sum does not decide whether a neuron fires, on an input on which neurons fire; if it does not
hold, everything is put back.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring
from dpap.anatomy.hidden_state import reset_state, unsaved_constants
from dpap.anatomy.joined import components
from dpap.anatomy.pytrees import Inputs
from dpap.anatomy.staining.dye import Site
from dpap.anatomy.wiring import Reader
from dpap.surgery.compiled import recompile
from dpap.surgery.culprits import find_culprits, only_silence
from dpap.surgery.equivalence import CompactionError, EquivalenceCheck, NothingFires
from dpap.surgery.masks import Masks, feature_stays
from dpap.surgery.slicing import Kept, keep_only


@dataclass(frozen=True)
class CompactReport:
    """What a removal did.

    Attributes:
        parameters_before: number of parameters before it.
        parameters_after: and after it.
        largest_difference: between silent and compact output on the check's input, relative to the largest.
        seconds: how long it took.
        staying: layers of which dead units could not leave and stay as zeros, and why.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
        >>> pruner = dpap.Pruner(model, torch.rand(4, 8), config=config)
        >>> model(torch.rand(64, 8)).square().sum().backward()  # training, of which gradients are observed
        >>> report = pruner.step()
        >>> removed = pruner.compact()
        >>> removed.parameters_before, removed.parameters_after
        (354, 178)
    """

    parameters_before: int
    parameters_after: int
    largest_difference: float
    seconds: float
    staying: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        text = (
            f"compacted {self.parameters_before:,} -> {self.parameters_after:,} parameters in "
            f"{self.seconds:.2f} s, largest difference {self.largest_difference:.1e}"
        )
        return "".join([text, *(f"\ndead units of {name} stay: {why}" for name, why in self.staying.items())])


def what_remains(
    wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]], readers: Iterable[Reader] | None = None
) -> Kept:
    """The units and features that remain when the given units of each layer have left; features of all readers, or of
    those that are given.
    """
    units = {name: (~gone).nonzero().flatten() for name, gone in leaving.items() if gone.any()}
    features: dict[str | Site, Tensor] = {}
    for reader in wiring.readers() if readers is None else readers:
        stays = feature_stays(reader.feeds, leaving)
        if stays is not None and not stays.all():
            features[reader.key] = stays.nonzero().flatten()
    return Kept(units, features)


def remove_dead(
    model: nn.Module,
    wiring: Wiring,
    masks: Masks,
    optimizers: Sequence[Optimizer],
    example_inputs: Inputs,
    round_to: int = 1,
    agreed: Callable[[bool], bool] = bool,
) -> tuple[Kept, CompactReport]:
    """Remove the dead units that can leave, and check that the network computes what it computed.

    Layers of which the dead cannot leave keep them as zeros, which `wiring` then says, while the dead of all others
    leave. Masks stay unchanged, as do the numbers of `wiring`: the caller renumbers them, and its own state, by the
    result. `agreed`: of whether the check passed in this process, whether it did in all that train the network.

    Raises:
        CompactionError: where the compact network fails or computes something else whatever stays; nothing is changed.
    """
    start = time.perf_counter()
    before = sum(parameter.numel() for parameter in model.parameters())
    staying: dict[str, str] = {}
    while True:
        kept = what_remains(wiring, masks.removable(wiring, round_to))
        if kept.everything:
            return kept, CompactReport(before, before, 0.0, time.perf_counter() - start, staying)
        try:
            _, difference = _agreed(agreed, model, wiring, kept, optimizers, example_inputs)
            break
        except NothingFires:
            raise
        except CompactionError:
            culprits = _culprits(model, wiring, masks, optimizers, example_inputs, round_to, agreed)
            if culprits is None:
                raise
            for names, why in culprits:
                now = [name for name in names if wiring.layers[name].removable]
                only_silence(wiring, now, f"its dead units cannot leave: {why}")
                staying |= dict.fromkeys(now, why)
    # a compiled network would be compiled anew for every size, and given up after a few
    recompile()
    # around a whole loop, autocast would go on with the weights of before
    torch.clear_autocast_cache()
    after = sum(parameter.numel() for parameter in model.parameters())
    if staying:
        warnings.warn(
            f"dead units of {', '.join(staying)} stay in the network as zeros, all others left it: "
            f"{next(iter(staying.values()))}",
            stacklevel=3,
        )
    return kept, CompactReport(before, after, difference, time.perf_counter() - start, staying)


def _culprits(
    model: nn.Module,
    wiring: Wiring,
    masks: Masks,
    optimizers: Sequence[Optimizer],
    example_inputs: Inputs,
    round_to: int,
    agreed: Callable[[bool], bool],
) -> list[tuple[list[str], str]] | None:
    """Layers without which the removal works, and why; None where nothing would leave then."""
    leaving = masks.removable(wiring, round_to)

    def problem(names: list[str]) -> str | None:
        part = {name: gone if name in names else torch.zeros_like(gone) for name, gone in leaving.items()}
        try:
            undo, _ = _agreed(agreed, model, wiring, what_remains(wiring, part), optimizers, example_inputs)
        except CompactionError as error:
            return str(error.__cause__ or error)
        undo()
        return None

    sets = [names for names in components(wiring) if any(bool(leaving[name].any()) for name in names)]
    culprits = find_culprits(sets, problem)
    return culprits if 0 < len(culprits) < len(sets) else None


def _agreed(
    agreed: Callable[[bool], bool],
    model: nn.Module,
    wiring: Wiring,
    kept: Kept,
    optimizers: Sequence[Optimizer],
    example_inputs: Inputs,
) -> tuple[Callable[[], None], float]:
    """`removed`, in all processes or in none."""
    failure: CompactionError | None = None
    try:
        undo, difference = removed(model, wiring, kept, optimizers, example_inputs)
    except CompactionError as error:
        failure = error
    fires, passed = agreed(not isinstance(failure, NothingFires)), agreed(failure is None)
    if passed:
        return undo, difference
    if failure is None:
        undo()
        failure = CompactionError(
            "in another process the check of the removal failed, so nothing was removed"
        )
    if not fires and not isinstance(failure, NothingFires):
        raise NothingFires("in another process no neuron fires on the example inputs") from failure
    raise failure


def _check_stored(model: nn.Module, wiring: Wiring, kept: Kept) -> None:
    """Check that what will be cut can be saved and loaded.

    Raises:
        CompactionError: where neurons keep constants in plain tensors.
    """
    for site, neuron in wiring.neurons.items():
        if site in kept.features and not neuron.incoming:
            for name in unsaved_constants(model.get_submodule(site.module), neuron.axis, neuron.features):
                raise CompactionError(
                    f"{site.module}.{name} has a value for each unit in a plain tensor, which no state_dict holds; let "
                    f"the constructor use self.register_buffer({name!r}, ...)"
                )


def removed(
    model: nn.Module,
    wiring: Wiring,
    kept: Kept,
    optimizers: Sequence[Optimizer],
    example_inputs: Inputs,
    double: bool = True,
    within: bool = False,
) -> tuple[Callable[[], None], float]:
    """Keep only what is kept, and compare, in double precision or in that of the network.

    `within`: whether that is within `frozen`.

    Returns:
        A function that puts everything back, and the largest difference that the removal made to an output.

    Raises:
        CompactionError: where it is too large, or nothing runs; everything is put back then.
    """
    count = sum(wiring.layers[name].units - len(units) for name, units in kept.units.items())
    with EquivalenceCheck(model, wiring, example_inputs, double, within) as check:
        check.leaving = kept.features
        silent = check.reference()
        _check_stored(model, wiring, kept)
        drawn = torch.get_rng_state()
        # what those forwards left behind must not be sliced with the rest; also the random state is reset
        reset_state(model)
        draws = not torch.equal(drawn, torch.get_rng_state())
        undo = keep_only(model, wiring, kept, optimizers)
        check.follow(kept.features)
        try:
            difference = check.difference(silent)
        except Exception as error:
            undo()
            raise CompactionError(
                f"the network does not run without its {count} dead units, so nothing was removed "
                f"({type(error).__name__}: {error}); code that fixes a number of channels, such as view(-1, 1960), "
                "has to take it from the tensor"
            ) from error
        tolerance = check.tolerance
        if not difference <= tolerance:
            undo()
            if draws:
                raise CompactionError(
                    "the network draws random numbers in evaluation mode, too, and others where units have left, so a "
                    "removal cannot be checked and nothing was removed"
                )
            raise CompactionError(
                f"without its {count} dead units the network would compute something else: outputs differ by "
                f"{difference:.1e} of the largest, {tolerance:.0e} is accepted; nothing was removed"
            )
    return undo, difference
