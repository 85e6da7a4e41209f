"""Whether what is said to be dead is silent: the activity of dead units is exactly zero on the example inputs."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from dpap.anatomy import Wiring
from dpap.anatomy.frozen import frozen
from dpap.anatomy.layers import by_row, owner_of
from dpap.anatomy.pytrees import Inputs, float_tensors, in_precision, precision_of, run
from dpap.surgery.masks import Masks


def not_silent(
    model: nn.Module,
    wiring: Wiring,
    masks: Masks,
    example_inputs: Inputs,
    training: bool = False,
) -> dict[str, str]:
    """Layers with dead units that are not silent, and what was seen of them; one forward of the example.

    A dead unit's own output is zero, and so is every feature of a weight layer that only dead units feed. The dead
    have to be zero in `model` already. Nothing of it changes, nor does the random state.

    Args:
        model: the network.
        wiring: of it.
        masks: what is alive.
        example_inputs: what its forward takes.
        training: whether weight layers are in training mode; all else is in evaluation mode.
    """
    useful = masks.useful(wiring)
    received = Masks(useful, {}, {})
    seen: list[tuple[str, str | None, Tensor]] = []

    def emitting(name: str, dead: Tensor, axis: int) -> Callable[..., None]:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            _look(seen, name, None, output, dead, axis)

        return look

    def arriving(name: str, source: str, dead: Tensor, axis: int) -> Callable[..., None]:
        def look(module: nn.Module, args: Any) -> None:
            _look(seen, source, name, args, dead, axis)

        return look

    handles: list[Any] = []
    with frozen(model, training_paths=wiring.training_paths, rest=wiring.rest):
        try:
            for name, layer in wiring.layers.items():
                axis = layer.kind.activity_axis
                if training:
                    for part in owner_of(layer.module).modules():
                        part.training = True
                called = layer.called
                if called is None:
                    continue
                if not layer.fixed and not useful[name].all():
                    look = emitting(name, by_row(~useful[name], layer.module), axis)
                    handles.append(called.register_forward_hook(look))
                silent = ~received.features(layer)
                for source, unit in layer.feeds.items() if silent.any() else ():
                    mine = silent & (unit >= 0)
                    if source in wiring.layers and mine.any():
                        before = arriving(name, source, mine, axis)
                        handles.append(called.register_forward_pre_hook(before))
            if handles:
                # a state of the network's own making is silent where its units are
                kept = {one.key: received.features(one).nonzero().flatten() for one in wiring.states}
                given = in_precision(example_inputs, wiring.precision, precision_of(model))
                run(model, wiring.with_states(given, kept, silent=True))
        finally:
            for handle in handles:
                handle.remove()
    problems: dict[str, str] = {}
    for name, reader, strongest in seen:
        if float(strongest) != 0:
            what = "emit something" if reader is None else f"send activity to {reader}"
            problems.setdefault(name, what)
    return problems


def _look(
    seen: list[tuple[str, str | None, Tensor]],
    name: str,
    reader: str | None,
    activity: Any,
    dead: Bool[Tensor, "_"],
    axis: int,
) -> None:
    """Note the strongest activity in the dead slices of the first tensor, without waiting for the device."""
    tensor = next(float_tensors(activity), None)
    if tensor is None or tensor.ndim < -axis or tensor.shape[axis] != len(dead) or not tensor.numel():
        return
    at = dead.nonzero().flatten().to(tensor.device)
    # what is not finite comes from elsewhere: a product of zero with it
    values = tensor.detach().index_select(axis, at).nan_to_num(0.0, 0.0, 0.0)
    seen.append((name, reader, values.abs().amax() if values.numel() else values.sum()))
