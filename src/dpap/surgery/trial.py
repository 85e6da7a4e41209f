"""Try deaths and removals before anything has died: so it is known from the start what would fail, and why.

Units of every layer are silenced, and it is looked at whether they are silent whatever values other parameters take.
Then several random sets of them are removed and put back. Where that fails, it is tried whether units leave
together, the k-th of every part that `chunk`, `split` or a view cuts from a layer.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from traceback import walk_tb
from typing import Literal

import torch
from torch import nn

from dpap.anatomy import Wiring
from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import accept, reset_state
from dpap.anatomy.joined import components, unit_labels
from dpap.anatomy.layers import bias_of, matrices_of, weight_of
from dpap.anatomy.prunability import propagate_unremovable
from dpap.anatomy.pytrees import Inputs, run
from dpap.surgery.around import attach
from dpap.surgery.claims import not_silent
from dpap.surgery.compact import removed, what_remains
from dpap.surgery.culprits import find_culprits, only_silence
from dpap.surgery.equivalence import CompactionError, NothingFires
from dpap.surgery.masks import Masks
from dpap.surgery.silence import dead_tensors, unit_parts
from dpap.surgery.slicing import Kept, keep_only
from dpap.surgery.ties import proposals


@dataclass(frozen=True)
class Deaths:
    """Which units of every layer die on trial.

    Attributes:
        where: at "random", or at the "front" or "back" of the layer.
        share: of the units.
        seed: of those at random.
    """

    where: Literal["random", "front", "back"]
    share: float
    seed: int = 0


TRIALS = (Deaths("random", 0.5), Deaths("front", 0.25), Deaths("back", 0.2))
"""What is removed on trial. Parts of a layer that must stay equally large are always found by units of its front, and
what is padded or cut at an end by those of its back; at random, what depends on which units leave.
"""
OF_TIES = (*TRIALS, *(Deaths("random", share, seed) for seed, share in enumerate((0.5, 0.3, 0.7), 1)))
"""What is removed to see whether units leave together."""
ATTEMPTS = 24
"""At most so many proposals of units that leave together are tried in a network, for each takes several forwards."""


def try_removal(model: nn.Module, wiring: Wiring, example_inputs: Inputs) -> None:
    """Silence and remove units of every weight layer on trial, and put everything back.

    Layers of which silenced units are not silent are left whole; what cannot be removed is only silenced, or leaves
    together. Code that fixes a number of channels, parameters that belong to no single layer, and all else that
    staining does not find, is found here. The prunability of layers of `wiring` is changed where needed, and its
    ties; the network and the random state never are.

    Args:
        model: the network.
        wiring: its wiring.
        example_inputs: what its forward takes.
    """
    _try_silence(model, wiring, example_inputs)
    attempts = iter(range(ATTEMPTS))
    # once for all, for what the network holds takes longer to keep than some networks to run
    with frozen(model, training_paths=wiring.training_paths, rest=wiring.rest):
        while not all(_try_deaths(model, wiring, example_inputs, chosen, attempts) for chosen in TRIALS):
            pass


def _try_silence(model: nn.Module, wiring: Wiring, example_inputs: Inputs) -> None:
    """Silence half of the units on trial; layers of which they are not silent are left whole, but for those that are
    once parameters of a module around them are silenced too.
    """
    for training in (False, True):
        problems = partial(_sending, model, wiring, example_inputs, training)
        while found := problems(TRIALS[:1]):
            # several sets, for one may be its own mirror image
            if attach(model, wiring, found, partial(problems, OF_TIES)):
                continue
            for name, what in found.items():
                leave_whole(wiring, name, what, training)
            propagate_unremovable(wiring)


def _sending(
    model: nn.Module, wiring: Wiring, example_inputs: Inputs, training: bool, kinds: Iterable[Deaths]
) -> dict[str, str]:
    """Layers of which silenced units are not silent after some of these deaths, and what they still do."""
    found: dict[str, str] = {}
    for chosen in kinds:
        masks = _deaths(wiring, wiring.layers, chosen)
        with _other_values(model, wiring), _silenced(wiring, masks):
            found |= not_silent(model, wiring, masks, example_inputs, training)
    return {name: what for name, what in found.items() if wiring.layers[name].can_die}


def leave_whole(wiring: Wiring, name: str, what: str, training: bool = False) -> None:
    """Let the units of a layer never die, because silenced ones `what`."""
    layer = wiring.layers[name]
    layer.prunability, layer.synapses = "whole", False
    when = " in training" if training else ""
    layer.reason = (
        f"its silenced units would still {what}{when}: something is added to weight and bias or after them"
    )


def _try_deaths(
    model: nn.Module, wiring: Wiring, example_inputs: Inputs, chosen: Deaths, attempts: Iterator[int]
) -> bool:
    """Try one kind of deaths in all layers; False where something was found that others have to be tried for again."""
    near: list[str] = []

    def problem(names: Sequence[str]) -> str | None:
        found = _trial(model, wiring, names, example_inputs, chosen, expected=bool(near))
        if found is not None:
            near[:] = found.near
        return found.why if found else None

    sets = [names for names in components(wiring) if any(wiring.layers[name].removable for name in names)]
    culprits = find_culprits(sets, problem, lambda: tuple(near))
    for names, why in culprits:
        if not _tied(model, wiring, example_inputs, names, attempts):
            only_silence(wiring, names, f"a trial removal failed: {why}")
    return not culprits


def _tied(
    model: nn.Module, wiring: Wiring, example_inputs: Inputs, names: list[str], attempts: Iterator[int]
) -> bool:
    """Whether units of some layers, which cannot leave one by one, can leave in groups; they are tied then."""
    if any(name in names for tie in wiring.ties for name, _ in tie):
        return False
    before = {name: (layer.prunability, layer.reason) for name, layer in wiring.layers.items()}
    ties = list(wiring.ties)
    for proposal in proposals(wiring, names):
        if next(attempts, None) is None:
            return False
        proposal.apply(wiring)
        together = next((each for each in components(wiring) if names[0] in each), names)
        leaves = any(not _remaining(wiring, together, chosen)[1].everything for chosen in OF_TIES)
        if leaves and all(
            _trial(model, wiring, together, example_inputs, chosen, expected=True) is None
            for chosen in OF_TIES
        ):
            return True
        wiring.ties = list(ties)
        for name, (prunability, reason) in before.items():
            wiring.layers[name].prunability, wiring.layers[name].reason = prunability, reason
    return False


@dataclass(frozen=True)
class _Problem:
    """What went wrong, and near which layers, the likeliest first."""

    why: str
    near: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: BaseException, model: nn.Module, wiring: Wiring) -> "_Problem":
        """That of a forward that failed: its layer reads what a source has too much or too little of."""
        # by identity: some modules are equal, or hash, by what they hold
        names = {id(module): name for name, module in model.named_modules()}
        running = [names.get(id(frame.f_locals.get("self"))) for frame, _ in walk_tb(error.__traceback__)]
        inner = [name for name in running if name in wiring.layers]
        near = [*wiring.layers[inner[-1]].feeds, inner[-1]] if inner else []
        return cls(f"{error}", tuple(near))


def _trial(
    model: nn.Module,
    wiring: Wiring,
    names: Sequence[str],
    example_inputs: Inputs,
    chosen: Deaths,
    expected: bool = False,
) -> _Problem | None:
    """What goes wrong when units of some layers are removed, or None; the network is as before afterwards.

    `expected`: whether a problem is likely, so that first of all it is looked whether the network runs.
    """
    masks, kept = _remaining(wiring, names, chosen)
    if kept.everything:
        return None
    reset_state(model)  # what forwards wrote is not to be kept
    with _silenced(wiring, masks):
        if expected and (problem := _does_not_run(model, wiring, kept, example_inputs)) is not None:
            return problem
        return _problem(model, wiring, kept, example_inputs)


def _does_not_run(model: nn.Module, wiring: Wiring, kept: Kept, example_inputs: Inputs) -> _Problem | None:
    """Why the network does not run with what is kept, or None; everything is put back."""
    if wiring.states or wiring.stepped or wiring.carries:
        return None  # states follow a removal, which the whole check looks after
    try:
        undo = keep_only(model, wiring, kept, ())
    except CompactionError:
        return None
    try:
        reset_state(model)
        run(model, example_inputs)
    except Exception as error:
        return _Problem.of(error, model, wiring)
    finally:
        undo()
    return None


def _remaining(wiring: Wiring, names: Sequence[str], chosen: Deaths) -> tuple[Masks, Kept]:
    """What dies on trial in some layers, and what remains when they alone lose units."""
    masks = _deaths(wiring, names, chosen)
    leaving = masks.removable(wiring)
    for name, gone in leaving.items():
        if name not in names:
            gone.fill_(False)
    return masks, what_remains(wiring, leaving)


def _problem(model: nn.Module, wiring: Wiring, kept: Kept, example_inputs: Inputs) -> _Problem | None:
    """What goes wrong when only what is kept remains, or None; everything is put back."""
    # single precision is quick and almost always enough; where it is not, double precision decides
    quick = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    for double in (False, True) if quick else (True,):
        problem = None
        try:
            undo, _ = removed(model, wiring, kept, (), example_inputs, double, within=True)
            undo()
        except NothingFires:
            pass
        except CompactionError as error:
            problem = _Problem.of(error.__cause__ or error, model, wiring)
            if error.__cause__ is not None:
                # what does not run in its own precision does not in another
                return problem
        if problem is None:
            return None
    return problem


def _deaths(wiring: Wiring, names: Iterable[str], chosen: Deaths) -> Masks:
    """Masks in which a share of the units of some layers is dead, with all that can only leave together."""
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    labels = unit_labels(wiring)
    count = 1 + max((int(label.max()) for label in labels.values()), default=0)
    dying = torch.zeros(count, dtype=torch.bool)
    generator = torch.Generator().manual_seed(chosen.seed)
    for name in names:
        layer = wiring.layers[name]
        if name in masks.units and layer.units > 1:
            number = min(max(round(chosen.share * layer.units), 1), layer.units - 1)
            order = torch.arange(layer.units)
            if chosen.where == "random":
                order = torch.randperm(layer.units, generator=generator)
            elif chosen.where == "back":
                order = order.flip(0)
            # of a stream, at random no more than of a single layer
            already = int(dying[labels[name]].sum()) if chosen.where == "random" else 0
            dying[labels[name][order[: max(number - already, 0)]]] = True
    for name in masks.units:
        # no layer dies whole
        if bool(dying[labels[name]].all()):
            dying[labels[name][0 if chosen.where == "back" else -1]] = False
    for name, alive in masks.units.items():
        alive &= ~dying[labels[name]].to(alive.device)
    return masks


@contextmanager
def _silenced(wiring: Wiring, masks: Masks) -> Iterator[None]:
    """The dead of `masks` are zero, and afterwards everything is as it was."""
    dead = dead_tensors(wiring, masks)
    before = [tensor.data for tensor, _ in dead]
    try:
        for tensor, mask in dead:
            tensor.data = tensor.data.masked_fill(mask, 0)
            accept(tensor)
        yield
    finally:
        for (tensor, _), data in zip(reversed(dead), reversed(before), strict=True):
            tensor.data = data
            accept(tensor)


@contextmanager
def _other_values(model: nn.Module, wiring: Wiring) -> Iterator[None]:
    """Other values in all parameters of which no entries are dead, such as a shift that starts at zero."""
    known = {id(tensor) for attachment in wiring.attachments.values() for tensor, _ in unit_parts(attachment)}
    for layer in wiring.layers.values():
        for matrix, _ in matrices_of(layer.module):
            known |= {id(weight_of(matrix)), id(bias_of(matrix))}
    generator = torch.Generator().manual_seed(0)
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    before = [parameter.data for parameter in others]
    try:
        for parameter, data in zip(others, before, strict=True):
            if data.is_floating_point():
                by = torch.empty(data.shape).uniform_(0.02, 0.1, generator=generator).to(data)
                parameter.data = data + by * (data.abs() + 1)
        yield
    finally:
        for parameter, data in zip(others, before, strict=True):
            parameter.data = data
