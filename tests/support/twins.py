"""Two equal networks in which the same units die; from one of them the dead are removed."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy import Wiring, find_wiring
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import what_remains
from dpap.surgery.slicing import Kept, keep_only

Make = Callable[[nn.Module], Sequence[Optimizer]]


def small_network() -> nn.Module:
    """Convolutions, a norm and fully connected layers, in double precision."""
    torch.manual_seed(3)
    layers = (
        nn.Conv2d(1, 5, 3, bias=False),
        nn.BatchNorm2d(5),
        nn.Tanh(),
        nn.Conv2d(5, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 7),
        nn.Tanh(),
        nn.Linear(7, 3),
    )
    return nn.Sequential(*layers).double()


def batch(step: int) -> Tensor:
    """The images of a step."""
    return torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)


class Twin:
    """A network, its optimizers, and the masks of what is alive in it."""

    def __init__(self, make: Make, build: Callable[[], nn.Module] = small_network) -> None:
        self.model = build()
        self.optimizers = make(self.model)
        self.wiring: Wiring = find_wiring(self.model, (batch(0),))
        self.masks = Masks.all_alive(self.wiring, synapses=True, timesteps=False)
        self.silence = Silence(self.model, self.wiring, self.optimizers)

    def die(self, *, synapses: bool = True) -> None:
        """Every third unit dies, and some synapses beside."""
        for alive in self.masks.units.values():
            alive[1::3] = False
        for alive in self.masks.synapses.values() if synapses else ():
            alive &= torch.rand(alive.shape, generator=torch.Generator().manual_seed(4)) < 0.8
        self.silence.impose(self.masks)

    def compact(self) -> Kept:
        """Remove the dead."""
        kept = what_remains(self.wiring, self.masks.removable(self.wiring))
        assert len(kept.units) == 3
        keep_only(self.model, self.wiring, kept, self.optimizers)
        self.wiring.keep(kept.units, kept.features)
        for name in self.masks.units:
            self.masks.keep(name, kept.units.get(name), kept.features.get(name))
        self.silence.impose(self.masks)
        return kept


def by_hand(model: nn.Module, kept: Kept) -> dict[str, Tensor]:
    """What should remain of the parameters and buffers of a `small_network`."""
    state = model.state_dict()
    for name, units in kept.units.items():
        for part in ("weight", "bias"):
            if f"{name}.{part}" in state:
                state[f"{name}.{part}"] = state[f"{name}.{part}"][units]
    for name in ("3", "6", "8"):
        state[f"{name}.weight"] = state[f"{name}.weight"][:, kept.features[name]]
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"1.{part}"] = state[f"1.{part}"][kept.units["0"]]
    return state
