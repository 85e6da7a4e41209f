"""Recurrent modules (LSTM, GRU, RNN, and their cells) as weight layers: one for each of their layers and directions.

A unit reads the features of its layer's input and the units of its own layer and direction, by weights with a block for
each gate. With all these weights and its biases zero it is silent, exactly, from a state that is zero:

    LSTM: i = f = o = 1/2, g = 0:  c' = f c + i g = c / 2 = 0,  h' = o tanh(c') = 0
    GRU:  r = z = 1/2, n = 0:      h' = (1 - z) n + z h = h / 2 = 0
    RNN:  h' = tanh(0) = 0, or relu(0)

The units of an LSTM's projection are a layer of their own between its units and what reads them. A state that is given
acts like a residual: what feeds its unit k is joined with unit k.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from dpap.anatomy.layers import matrices_of, size_of
from dpap.anatomy.views import JointView, MatrixView

SIZES = ("input_size", "hidden_size", "proj_size")
"""Attributes of recurrent modules that count features and units."""

_GATES: dict[type[nn.Module], int] = {
    nn.LSTM: 4,
    nn.GRU: 3,
    nn.RNN: 1,
    nn.LSTMCell: 4,
    nn.GRUCell: 3,
    nn.RNNCell: 1,
}


@dataclass(frozen=True)
class Part:
    """The units of one layer and direction of a recurrent module.

    Attributes:
        name: of the layer in the network.
        number: its place in the module's states.
        hidden: the units, which read the input and, recurrently, what the part emits.
        projection: of an LSTM, if it has one: the units that read the hidden ones and are emitted instead.
    """

    name: str
    number: int
    hidden: JointView
    projection: MatrixView | None

    @property
    def projection_name(self) -> str:
        """Name of the projection as a layer."""
        return f"{self.name}.projection"

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """Its weight layers by name."""
        yield self.name, self.hidden
        if self.projection is not None:
            yield self.projection_name, self.projection


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is one of torch's recurrent ones, with torch's own forward."""
    return _gates_of(module) is not None


def _gates_of(module: nn.Module) -> int | None:
    kinds = (base for base in _GATES if isinstance(module, base) and type(module).forward is base.forward)
    return next((_GATES[base] for base in kinds), None)


def parts_of(name: str, module: nn.Module) -> list[list[Part]]:
    """The directions of each layer of a recurrent module.

    Args:
        name: of the module in the network.
        module: a recurrent one.
    """
    gates = _gates_of(module)
    if gates is None:
        raise TypeError(f"expected an LSTM, GRU, RNN, or a cell of them; got {type(module).__name__}")

    def part(number: int, suffix: str, own: str, outer: bool) -> Part:
        matrices = (
            MatrixView(module, f"weight_{kind}{suffix}", f"bias_{kind}{suffix}", gates)
            for kind in ("ih", "hh")
        )
        projection = f"weight_hr{suffix}"
        projected = MatrixView(module, projection, "") if hasattr(module, projection) else None
        return Part(own, number, JointView(*matrices, outer=outer), projected)

    if isinstance(module, nn.RNNCellBase):
        return [[part(0, "", name, True)]]
    directions = ("", "_reverse") if module.bidirectional else ("",)
    prefix = f"{name}." if name else ""
    return [
        [
            part(len(directions) * layer + number, f"_l{layer}{way}", f"{prefix}l{layer}{way}", layer == 0)
            for number, way in enumerate(directions)
        ]
        for layer in range(int(module.num_layers))  # type: ignore[arg-type]
    ]


def layers_of(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """The weight layers of a recurrent module by name."""
    return {own: view for layer in parts_of(name, module) for part in layer for own, view in part.layers()}


def with_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Every module of a network by name, and the weight layers of recurrent ones."""
    found = dict(model.named_modules())
    for name, module in list(found.items()):
        if is_recurrent(module):
            found |= layers_of(name, module)
    return found


def counts_of(module: nn.Module) -> dict[str, int]:
    """What a recurrent module's own counts of features and units should be, by its weights."""
    first = parts_of("", module)[0][0]
    counts = {
        "input_size": size_of(first.hidden.matrices[0])[1],
        "hidden_size": size_of(first.hidden)[0],
    }
    if first.projection is not None:
        counts["proj_size"] = size_of(first.projection)[0]
    return counts


def flatten(module: nn.Module) -> None:
    """Lay a module's weights out as one block again, as its kernels on GPUs want them."""
    if isinstance(module, nn.RNNBase):
        module.flatten_parameters()


def emission(
    parts: list[list[Part]],
    given: Tensor,
    states: list[Tensor],
    returned: list[Tensor],
    emit: Callable[[str, torch.Size, Tensor], Tensor],
    profile: Callable[[Tensor], Tensor],
    mark: float,
) -> tuple[list[Tensor], dict[str, Shaped[Tensor, " feature"]]]:
    """What a recurrent module returns when its weight layers emit dye, and what each of them reads.

    Args:
        parts: of the module.
        given: its input [..., feature]; of a packed sequence, the data.
        states: initial states; none where they are left out.
        returned: the tensors that the module returns: of each state, and before them, but for cells, the output.
        emit: what a layer emits: by its name, the shape, and a tensor of the same precision and place.
        profile: which slices along the last axis of an activity hold what is detected, or a number for each that
            changes where it does.
        mark: what is detected.

    Returns:
        The tensors in place of those returned, and layer -> the profile of its features.
    """
    is_cell = isinstance(parts[0][0].hidden.owner, nn.RNNCellBase)
    ends = returned if is_cell else returned[1:]
    arriving, read = profile(given), {}
    outputs: list[Tensor] = []
    finals: list[list[Tensor]] = [[] for _ in ends]

    def joined(activity: Tensor, state: int, number: int) -> Tensor:
        """With what an initial state holds: all of it may reach what the unit emits."""
        if state >= len(states):
            return activity
        here = profile(states[state] if is_cell else states[state][number]).to(activity.device)
        if here.is_floating_point():
            return activity + here.to(activity.dtype)
        return torch.where(here, activity + mark, activity)

    for layer in parts:
        last = layer is parts[-1]
        outputs = []
        for part in layer:
            units = size_of(part.hidden)[0]
            emitted = part.name if part.projection is None else part.projection_name
            width = units if part.projection is None else size_of(part.projection)[0]

            def hidden(shape: torch.Size, part: Part = part) -> Tensor:
                return joined(emit(part.name, shape, given), 1, part.number)

            def out(shape: torch.Size, part: Part = part, emitted: str = emitted) -> Tensor:
                first = hidden if part.projection is None else lambda shape: emit(emitted, shape, given)
                return joined(first(shape), 0, part.number)

            # what stays inside is one row; what leaves has the form of what the module returns
            outputs.append(out(torch.Size((*(given.shape[:-1] if last else (1,)), width))))
            read[part.name] = torch.cat([arriving, profile(outputs[-1])])
            if part.projection is not None:
                read[emitted] = profile(hidden(torch.Size((1, units))))
            for made, final, end in zip((out, hidden), finals, ends, strict=False):
                final.append(made(end.shape if is_cell else end.shape[1:]))
        arriving = torch.cat([profile(output) for output in outputs])
    if is_cell:
        return [final[0] for final in finals], read
    return [torch.cat(outputs, -1), *(torch.stack(final) for final in finals)], read


def reads_state(module: nn.Module) -> slice:
    """Which features of a recurrent layer are the units that it emitted before; none of other layers."""
    if isinstance(module, JointView):
        return list(matrices_of(module))[1][1]
    return slice(0, 0)
