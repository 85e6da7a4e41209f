"""Networks for tests: random feed-forward chains, and small ones with joins, loops and oddities."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from dpap.spiking import IF, LIF, PLIF, FoldTime

Drawn = tuple[nn.Module, Tensor]


class Timed(nn.Module):
    """Layers over [T, B, ...]: the first gets a constant input once, the others every timestep."""

    def __init__(self, layers: list[nn.Module], timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        self.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor) -> Tensor:
        activity = self.layers[0](images)
        activity = activity.expand(self.timesteps, *activity.shape)
        for layer in self.layers[1:]:
            activity = layer(activity)
        return activity.mean(0)


@st.composite
def chains(draw: st.DrawFn) -> Drawn:
    """A random chain with normalisation, pooling, dropout and flatten, spiking or not, and an input."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    spiking, side = draw(st.booleans()), 8
    dimensions = draw(st.integers(1, 2))
    convolution = (nn.Conv1d, nn.Conv2d)[dimensions - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d)[dimensions - 1]
    average = (nn.AvgPool1d, nn.AvgPool2d)[dimensions - 1]
    largest = (nn.MaxPool1d, nn.MaxPool2d)[dimensions - 1]
    layers: list[nn.Module] = []

    def add(*modules: nn.Module) -> None:
        layers.append(FoldTime(*modules) if spiking and layers else nn.Sequential(*modules))

    def neuron() -> nn.Module:
        if not spiking:
            return draw(st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.1), nn.GELU(), nn.Tanh()]))
        kind = draw(st.sampled_from([IF, LIF, PLIF]))
        return kind(threshold=0.5, reset=draw(st.sampled_from(["hard", "soft"])))

    channels = 2
    for _ in range(draw(st.integers(0, 2))):
        units = draw(st.integers(2, 7))
        modules: list[nn.Module] = [convolution(channels, units, 3, padding=1, bias=draw(st.booleans()))]
        if draw(st.booleans()):
            modules.append(norm(units))
        add(*modules)
        layers.append(neuron())
        pool = draw(st.sampled_from([None, average, largest]))
        if pool is not None and side > 2:
            add(pool(2))
            side //= 2
        if draw(st.booleans()):
            add(nn.Dropout(0.3))
        channels = units
    features = channels * side**dimensions
    modules = [nn.Flatten()]
    for _ in range(draw(st.integers(1, 2))):
        units = draw(st.integers(2, 9))
        modules.append(nn.Linear(features, units, bias=draw(st.booleans())))
        if draw(st.booleans()):
            modules.append(nn.BatchNorm1d(units))
        add(*modules)
        layers.append(neuron())
        modules, features = [], units
    add(nn.Linear(features, 3))
    for module in list(layers):
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.normal_(part.bias, std=0.5)
                nn.init.normal_(part.running_mean, std=0.2)
    model = Timed(layers, 4) if spiking else nn.Sequential(*layers)
    return model, 3 * torch.rand(4, 2, *[8] * dimensions)


class Residual(nn.Module):
    """A residual stream with an identity shortcut, a layer beside it, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=1)
        self.act0, self.act1, self.act2 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.inner = nn.Conv2d(6, 5, 3, padding=1)
        self.outer = nn.Conv2d(5, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.side = nn.Conv2d(6, 4, 1)
        self.head = nn.Linear(10, 3)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.act0(self.stem(images))
        stream = self.act1(stream + self.norm(self.outer(self.act2(self.inner(stream)))))
        both = torch.cat([torch.relu(self.side(stream)), stream], 1)
        return self.head(both.mean((2, 3)))


class Stepped(nn.Module):
    """A spiking network that steps through time in Python and keeps the membrane itself."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.neuron, self.fc2 = nn.Linear(5, 8), OneStep(), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.neuron.membrane = torch.zeros(())
        return torch.stack([self.fc2(self.neuron(self.fc1(images))) for _ in range(4)]).mean(0)


class OneStep(nn.Module):
    """A neuron of one timestep a call, as other frameworks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane = torch.zeros(())

    def forward(self, current: Tensor) -> Tensor:
        self.membrane = self.membrane * 0.5 + current
        spikes = (self.membrane >= 0.5).to(current.dtype)
        self.membrane = self.membrane * (1 - spikes)
        return spikes + current - current.detach()
