"""Recurrent networks, and what they compute with some of their units masked, written out step by step."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

Masks = dict[str, Tensor]
"""Name of a layer -> what its units are multiplied with."""


def step(
    kind: str, weights: dict[str, Tensor], suffix: str, x: Tensor, read: Tensor, h: Tensor, c: Tensor
) -> list[Tensor]:
    """One timestep: h before a projection, and c; what the units read of themselves is masked, their states are not."""
    ih, hh = (
        nn.functional.linear(part, weights[f"weight_{way}{suffix}"], weights.get(f"bias_{way}{suffix}"))
        for part, way in ((x, "ih"), (read, "hh"))
    )
    if kind == "LSTM":
        i, f, g, o = (ih + hh).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return [o.sigmoid() * c.tanh(), c]
    if kind == "GRU":
        (r, z, n), (hr, hz, hn) = ih.chunk(3, -1), hh.chunk(3, -1)
        n = (n + (r + hr).sigmoid() * hn).tanh()
        z = (z + hz).sigmoid()
        return [(1 - z) * n + z * h, c]
    return [(ih + hh).tanh() if kind == "RNN_TANH" else (ih + hh).relu(), c]


def masked(rnn: nn.RNNBase, x: Tensor, masks: Masks, name: str = "rnn") -> Tensor:
    """The output over [T, B, feature] of a module, its units multiplied with masks wherever they are read."""
    weights = dict(rnn.named_parameters())
    for layer in range(rnn.num_layers):
        ways = []
        for way in ("", "_reverse") if rnn.bidirectional else ("",):
            suffix, own = f"_l{layer}{way}", f"{name}.l{layer}{way}"
            mask, projection = masks[own], weights.get(f"weight_hr{suffix}")
            read = x.new_zeros(x.shape[1], rnn.proj_size or rnn.hidden_size)
            h = c = x.new_zeros(x.shape[1], rnn.hidden_size)
            outputs = []
            for now in x.flip(0) if way else x:
                h, c = step(rnn.mode, weights, suffix, now, read, h, c)
                read = h * mask
                if projection is not None:
                    read = nn.functional.linear(read, projection) * masks[f"{own}.projection"]
                outputs.append(read)
            ways.append(torch.stack(outputs[::-1] if way else outputs))
        x = torch.cat(ways, -1)
    return x


class RecurrentNetwork(nn.Module):
    """A layer, a recurrent module over [T, B, feature] or [B, T, feature], packed or not, and a layer.

    Args:
        kind: name of the module's class.
        reads: what the last layer reads: "all" timesteps, the "last" of them, or the "states".
        packed: sequences are of several lengths.
        options: of the module.
    """

    def __init__(self, kind: str, reads: str = "all", packed: bool = False, **options: Any) -> None:
        super().__init__()
        self.reads, self.packed = reads, packed
        self.first = nn.Linear(4, 5)
        self.rnn = getattr(nn, kind)(5, 7, **options)
        width = self.rnn.proj_size or 7
        if reads == "states":
            self.head = nn.Linear(width + (7 if kind == "LSTM" else 0), 3)
        else:
            self.head = nn.Linear(width * (2 if self.rnn.bidirectional else 1), 3)
        self.masks: Masks | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).tanh()
        if self.masks is not None:
            x = masked(self.rnn, x * self.masks["first"], self.masks)
            return self.head(x[-1] if self.reads == "last" else x)
        batch_first = self.rnn.batch_first
        if batch_first:
            x = x.transpose(0, 1)
        if self.packed:
            lengths = [max(1, len(x) - place) for place in range(len(x) if batch_first else x.shape[1])]
            x = pack_padded_sequence(x, lengths, batch_first=batch_first)
        x, states = self.rnn(x)
        if isinstance(x, PackedSequence):
            x, _ = pad_packed_sequence(x, batch_first=batch_first)
        if batch_first:
            x = x.transpose(0, 1)
        if self.reads == "states":
            states = states if isinstance(states, tuple) else (states,)
            return self.head(torch.cat([state[-1] for state in states], -1))
        return self.head(x[-1] if self.reads == "last" else x)


class CellNetwork(nn.Module):
    """A cell in a loop over [T, B, feature], its first state left out or as wide as the cell says."""

    def __init__(self, kind: str, state: str = "none", bias: bool = True) -> None:
        super().__init__()
        self.state = state
        self.first, self.cell = nn.Linear(4, 5), getattr(nn, kind)(5, 7, bias=bias)
        self.head = nn.Linear(7, 3)
        self.masks: Masks | None = None

    def forward(self, x: Tensor) -> Tensor:
        x, masks = self.first(x).tanh(), self.masks or {}
        kind = type(self.cell).__name__.removesuffix("Cell")
        zeros = x.new_zeros(x.shape[1], self.cell.hidden_size)
        state: Any = None
        if self.state == "zeros":
            state = (zeros, zeros) if kind == "LSTM" else zeros
        outputs, h, c, read = [], zeros, zeros, zeros
        for now in x:
            if masks:
                weights = dict(self.cell.named_parameters())
                kind = "RNN_TANH" if kind == "RNN" else kind
                h, c = step(kind, weights, "", now * masks["first"], read, h, c)
                read = h * masks["cell"]
            else:
                state = self.cell(now, state)
                read = state[0] if kind == "LSTM" else state
            outputs.append(read)
        return self.head(torch.stack(outputs))
