"""Slice what remains: parameters, buffers, gradients and moments, in place, and put everything back if asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from dpap.anatomy import Wiring
from dpap.anatomy.dye import Site
from dpap.anatomy.projections import select
from dpap.anatomy.wiring import Attachment, Projection, unit_tensors
from dpap.surgery.optimizer import change_moments
from dpap.surgery.timesteps import keep_timesteps


@dataclass(frozen=True)
class Kept:
    """What remains of each part: indices of units by projection, of features by module."""

    units: dict[str, Tensor]
    features: dict[str | Site, Tensor]

    @property
    def everything(self) -> bool:
        """Whether nothing leaves."""
        return not self.units and not self.features


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
    for site, neuron in wiring.neurons.items():
        if site.call == 0 and not neuron.incoming and site in kept.features:
            undo.append(keep_timesteps(model.get_submodule(site.module), kept.features[site]))

    def undo_all() -> None:
        for step in reversed(undo):
            step()

    return undo_all


def _change(
    tensor: Tensor,
    change: Callable[[Tensor], Tensor],
    optimizers: Sequence[Optimizer],
    undo: list[Callable[[], None]],
) -> None:
    """Change a tensor, its gradient and its moments in the same way."""
    data, gradient = tensor.data, tensor.grad

    def put_back() -> None:
        tensor.grad = None
        tensor.data = data
        tensor.grad = gradient

    undo.append(put_back)
    if isinstance(tensor, Parameter):
        for optimizer in optimizers:
            undo.append(change_moments(optimizer, tensor, change))
    tensor.grad = None
    tensor.data = change(data)
    if gradient is not None:
        tensor.grad = change(gradient)


def _set_number(module: nn.Module, names: Sequence[str], new: int, undo: list[Callable[[], None]]) -> None:
    for name in names:
        old = getattr(module, name, None)
        if isinstance(old, int) and not isinstance(old, bool):
            undo.append(lambda name=name, old=old: setattr(module, name, old))  # type: ignore[misc]
            setattr(module, name, new)


def _slice_projection(
    projection: Projection, kept: Kept, optimizers: Sequence[Optimizer], undo: list[Callable[[], None]]
) -> None:
    module = projection.module
    units, features = kept.units.get(projection.name), kept.features.get(projection.name)
    if units is None and features is None:
        return
    weight = module.get_parameter("weight")
    remains = partial(select, module=module, shape=weight.shape, units=units, features=features)
    _change(weight, remains, optimizers, undo)
    if units is not None:
        bias = module._parameters.get("bias")
        if bias is not None:
            _change(bias, partial(_along, axis=0, index=units), optimizers, undo)
        _set_number(module, ("out_features", "out_channels"), len(units), undo)
    if features is not None:
        _set_number(module, ("in_features", "in_channels"), len(features), undo)


def _along(tensor: Tensor, axis: int, index: Tensor) -> Tensor:
    return tensor.index_select(axis, index.to(tensor.device))


def _slice_attachment(
    attachment: Attachment, kept: Kept, optimizers: Sequence[Optimizer], undo: list[Callable[[], None]]
) -> None:
    features = kept.features.get(attachment.name)
    if features is None:
        return
    for name, axis in unit_tensors(attachment.module, attachment.features).items():
        along = partial(_along, axis=axis, index=features)
        _change(getattr(attachment.module, name), along, optimizers, undo)
    _set_number(attachment.module, ("num_features", "num_parameters"), len(features), undo)
