"""Removal: dead units leave parameters, buffers and optimizer state, in place, and nothing else changes.

The compact network must compute what the silenced one computes. That is checked in double precision, where the
order of a sum does not decide whether a neuron fires, on an input on which neurons fire; if it does not hold,
everything is put back.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from dpap.anatomy import Wiring
from dpap.anatomy.nested import float_tensors, map_floats
from dpap.anatomy.wiring import Attachment, Projection, unit_tensors
from dpap.surgery.living import Living, feature_stays
from dpap.surgery.optimizer import change_moments
from dpap.surgery.timesteps import keep_timesteps

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-1, torch.float16: 1e-2}
"""Largest accepted difference between silent and compact output, relative to the largest output."""


class CompactionError(RuntimeError):
    """The compact network would not compute what the silenced one computes; nothing was changed."""


@dataclass(frozen=True)
class CompactReport:
    """What a removal did.

    Attributes:
        parameters_before: number of parameters before it.
        parameters_after: and after it.
        largest_difference: between silent and compact output on the check's input, relative to the largest.
        seconds: how long it took.
    """

    parameters_before: int
    parameters_after: int
    largest_difference: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"compacted {self.parameters_before:,} -> {self.parameters_after:,} parameters in "
            f"{self.seconds:.2f} s, largest difference {self.largest_difference:.1e}"
        )


@dataclass(frozen=True)
class Kept:
    """What remains of each part: indices of units by projection, of features by module."""

    units: dict[str, Tensor]
    features: dict[str, Tensor]

    @property
    def everything(self) -> bool:
        """Whether nothing leaves."""
        return not self.units and not self.features


def what_remains(wiring: Wiring, leaving: dict[str, Bool[Tensor, "_"]]) -> Kept:
    """The units and features that stay when the given units of each projection have left."""
    units = {name: (~gone).nonzero().flatten() for name, gone in leaving.items() if gone.any()}
    features: dict[str, Tensor] = {}
    for reader in wiring.readers():
        stays = feature_stays(reader.feeds, leaving)
        if stays is not None and not stays.all():
            features[reader.name] = stays.nonzero().flatten()
    return Kept(units, features)


def keep_only(
    model: nn.Module, wiring: Wiring, kept: Kept, optimizers: Sequence[Optimizer]
) -> Callable[[], None]:
    """Slice parameters, buffers, gradients and moments to what remains; returns what undoes it.

    Tensors stay the same objects, so that everybody's references stay valid.
    """
    undo: list[Callable[[], None]] = []
    for projection in wiring.projections.values():
        _slice_projection(projection, kept, optimizers, undo)
    for attachment in wiring.attachments.values():
        _slice_attachment(attachment, kept, optimizers, undo)
    for name in {site.module for site in wiring.neurons} & kept.features.keys():
        undo.append(keep_timesteps(model.get_submodule(name), kept.features[name]))

    def undo_all() -> None:
        for step in reversed(undo):
            step()

    return undo_all


def remove_dead(
    model: nn.Module,
    wiring: Wiring,
    living: Living,
    optimizers: Sequence[Optimizer],
    example_inputs: tuple[Any, ...],
) -> tuple[Kept, CompactReport]:
    """Remove the dead units that can leave, and check that the network computes what it computed.

    Wiring and living are left as they were: the caller renumbers them, and its own state, by the result.

    Raises:
        CompactionError: where the compact network fails or computes something else; nothing is changed.
    """
    start = time.perf_counter()
    before = sum(parameter.numel() for parameter in model.parameters())
    kept = what_remains(wiring, living.removable(wiring))
    if kept.everything:
        return kept, CompactReport(before, before, 0.0, time.perf_counter() - start)
    with Witness(model, wiring, example_inputs) as witness:
        silent = witness.look()
        undo = keep_only(model, wiring, kept, optimizers)
        try:
            difference = _difference(silent, witness.outputs())
        except Exception as error:
            undo()
            raise CompactionError(
                f"the network does not run without its {_count(wiring, kept)} dead units, so nothing was removed "
                f"({type(error).__name__}: {error}); code that fixes a number of channels, such as view(-1, 1960), "
                "has to take it from the tensor"
            ) from error
        tolerance = witness.tolerance
        if not difference <= tolerance:
            undo()
            raise CompactionError(
                f"without its {_count(wiring, kept)} dead units the network would compute something else: outputs "
                f"differ by {difference:.1e} of the largest, {tolerance:.0e} is accepted; nothing was removed"
            )
    after = sum(parameter.numel() for parameter in model.parameters())
    return kept, CompactReport(before, after, difference, time.perf_counter() - start)


def _count(wiring: Wiring, kept: Kept) -> int:
    return sum(wiring.projections[name].units - len(units) for name, units in kept.units.items())


def _slice(
    tensor: Tensor, axis: int, index: Tensor, optimizers: Sequence[Optimizer], undo: list[Callable[[], None]]
) -> None:
    index = index.to(tensor.device)
    data, gradient = tensor.data, tensor.grad

    def put_back() -> None:
        tensor.grad = None
        tensor.data = data
        tensor.grad = gradient

    undo.append(put_back)
    if isinstance(tensor, Parameter):
        for optimizer in optimizers:
            undo.append(change_moments(optimizer, tensor, lambda moment: moment.index_select(axis, index)))
    tensor.grad = None
    tensor.data = data.index_select(axis, index)
    if gradient is not None:
        tensor.grad = gradient.index_select(axis, index)


def _set_number(module: nn.Module, names: Sequence[str], new: int, undo: list[Callable[[], None]]) -> None:
    for name in names:
        old = getattr(module, name, None)
        if isinstance(old, int) and not isinstance(old, bool):
            undo.append(lambda name=name, old=old: setattr(module, name, old))  # type: ignore[misc]
            setattr(module, name, new)


def _slice_projection(
    projection: Projection, kept: Kept, optimizers: Sequence[Optimizer], undo: list[Callable[[], None]]
) -> None:
    module, kind = projection.module, projection.kind
    units, features = kept.units.get(projection.name), kept.features.get(projection.name)
    if units is not None:
        _slice(module.get_parameter("weight"), kind.unit_axis, units, optimizers, undo)
        bias = module._parameters.get("bias")
        if bias is not None:
            _slice(bias, 0, units, optimizers, undo)
        _set_number(module, ("out_features", "out_channels"), len(units), undo)
    if features is not None:
        _slice(module.get_parameter("weight"), kind.feature_axis, features, optimizers, undo)
        _set_number(module, ("in_features", "in_channels"), len(features), undo)


def _slice_attachment(
    attachment: Attachment, kept: Kept, optimizers: Sequence[Optimizer], undo: list[Callable[[], None]]
) -> None:
    features = kept.features.get(attachment.name)
    if features is None:
        return
    for name, axis in unit_tensors(attachment.module, attachment.features).items():
        _slice(getattr(attachment.module, name), axis, features, optimizers, undo)
    _set_number(attachment.module, ("num_features", "num_parameters"), len(features), undo)


class Witness:
    """Runs a network in evaluation mode and, where it can, double precision, on an input that makes it fire."""

    def __init__(self, model: nn.Module, wiring: Wiring, example_inputs: tuple[Any, ...]) -> None:
        self.model = model
        self.wiring = wiring
        self.example_inputs = example_inputs
        self.inputs = example_inputs
        self.double = True
        self.tolerance = TOLERANCE[torch.float64]

    def __enter__(self) -> "Witness":
        self._training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        return self

    def __exit__(self, *reason: object) -> None:
        for module in self._training:
            module.training = True

    def look(self) -> list[Tensor]:
        """Outputs on whichever of these makes the most layers fire: the example, then stronger ones.

        Raises:
            CompactionError: where none of them makes any neuron fire.
        """
        try:
            self.outputs()
        except RuntimeError:
            # a network that fixes its own precision cannot be checked in another
            self.double = False
            dtypes = {parameter.dtype for parameter in self.model.parameters()}
            self.tolerance = max(TOLERANCE.get(dtype, 1e-5) for dtype in dtypes)
        most, best, found = 0, self.example_inputs, []
        for scale in (1.0, 4.0, 16.0, 64.0):
            self.inputs = map_floats(self.example_inputs, partial(torch.mul, scale))
            with self._firing() as fired:
                outputs = self.outputs()
            if len(fired) > most:
                most, best, found = len(fired), self.inputs, outputs
            if most == len({site.module for site in self.wiring.neurons}):
                break
        if not most:
            raise CompactionError(
                "no neuron fires on the example inputs, even 64 times as strong, so removal cannot be checked and "
                "nothing was removed; give Pruner example inputs like those of training"
            )
        self.inputs = best
        return found

    def outputs(self) -> list[Tensor]:
        """All floating-point outputs."""
        with torch.no_grad():
            if not self.double:
                return list(float_tensors(self.model(*self.inputs)))
            with in_double(self.model):
                return list(float_tensors(self.model(*map_floats(self.inputs, Tensor.double))))

    @contextmanager
    def _firing(self) -> Iterator[set[str]]:
        fired: set[str] = set()
        modules = dict(self.model.named_modules())
        names = {site.module for site in self.wiring.neurons}

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if any(bool((tensor != 0).any()) for tensor in float_tensors(output)):
                    fired.add(name)

            return hook

        handles = [modules[name].register_forward_hook(watch(name)) for name in names]
        try:
            yield fired
        finally:
            for handle in handles:
                handle.remove()


@contextmanager
def in_double(model: nn.Module) -> Iterator[None]:
    """The network in double precision, in the same tensors, and back as it was."""
    floating = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    old = [tensor.data for tensor in floating]
    gradients = [tensor.grad for tensor in floating]
    for tensor in floating:
        tensor.grad = None
        tensor.data = tensor.data.double()
    try:
        yield
    finally:
        for tensor, data, gradient in zip(floating, old, gradients, strict=True):
            tensor.data = data
            tensor.grad = gradient


def _difference(before: list[Tensor], after: list[Tensor]) -> float:
    """Largest difference relative to the largest output; infinite where shapes differ or NaN appears."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf")
    worst = 0.0
    for old, new in zip(before, after, strict=True):
        if old.numel() == 0:
            continue
        scale = max(float(old.abs().max()), torch.finfo(old.dtype).tiny)
        difference = float((new - old).abs().max()) / scale
        worst = max(worst, difference if difference == difference else float("inf"))
    return worst
