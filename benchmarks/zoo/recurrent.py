"""Recurrent networks of torch alone."""

from functools import partial

import torch
from torch import Tensor, nn

from zoo.measure import Example, Maker

PACKAGE = "torch"


def load() -> None:
    """Nothing further is needed."""


class Recurrent(nn.Module):
    """Recurrent layers over a sequence, and the last step classified."""

    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.rnn = kind(6, 16, batch_first=True, **options)  # type: ignore[arg-type]
        directions = 2 if self.rnn.bidirectional else 1
        width = getattr(self.rnn, "proj_size", 0) or 16
        self.out = nn.Sequential(nn.Linear(directions * width, 12), nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.out(self.rnn(x)[0][:, -1])


class Cells(nn.Module):
    """A cell that is called once a timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(6, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        assert state is not None
        return self.out(state[0])


class WrittenOut(nn.Module):
    """An LSTM of two linear layers and their four parts."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.loop, self.out = nn.Linear(6, 64), nn.Linear(16, 64, bias=False), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        h = c = x.new_zeros(len(x), self.loop.in_features)
        for step in x.unbind(1):
            i, f, g, o = (self.read(step) + self.loop(h)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.out(h)


class Tagger(nn.Module):
    """Words as integers, embedded, read in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.rnn = nn.LSTM(8, 12, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, words: Tensor) -> Tensor:
        """Logits of every word."""
        return self.out(self.rnn(self.embedding(words))[0])


class SpeechRecogniser(nn.Module):
    """Convolutions, then a recurrent layer, as DeepSpeech 2 has them (Amodei et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(8, 16, 5, padding=2),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Conv1d(16, 16, 5, padding=2),
            nn.ReLU(),
        )
        self.rnn, self.out = nn.GRU(16, 16, batch_first=True), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of every step."""
        return self.out(self.rnn(self.conv(x).transpose(1, 2))[0])


def network(kind: type[nn.RNNBase], **options: object) -> Example:
    """A recurrent network and two sequences."""
    return Recurrent(kind, **options), (torch.rand(2, 9, 6),)


def convolutions_first() -> Example:
    """Convolutions and a GRU."""
    return SpeechRecogniser(), (torch.rand(2, 8, 30),)


NETWORKS: dict[str, Maker] = {
    "LSTM": partial(network, nn.LSTM),
    "LSTM, two layers, both directions": partial(network, nn.LSTM, num_layers=2, bidirectional=True),
    "LSTM with projections": partial(network, nn.LSTM, proj_size=8),
    "GRU": partial(network, nn.GRU, num_layers=2),
    "RNN": partial(network, nn.RNN, nonlinearity="relu"),
    "LSTM cells": lambda: (Cells(), (torch.rand(2, 9, 6),)),
    "LSTM written out": lambda: (WrittenOut(), (torch.rand(2, 9, 6),)),
    "tagger on words": lambda: (Tagger(), (torch.randint(50, (2, 9)),)),
    "convolutions and GRU": convolutions_first,
}
