"""Measured time of every weight layer, the cost that a target of latency is a share of."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dpap.anatomy import Wiring
from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.layers import owner_of
from dpap.anatomy.pytrees import Inputs, run
from dpap.pruning.distributed import Ranks
from dpap.surgery import Masks
from dpap.surgery.compact import what_remains
from dpap.surgery.slicing import keep_only

REPEATS, WARM_UP = 15, 3
"""Forwards that are measured, and that go before them."""


@dataclass(frozen=True)
class LayerTime:
    """Time of one weight layer in an inference.

    Attributes:
        seconds: in the dense network.
        macs: of it there.
        per_mac: seconds that each of them less saves; the rest is what its call takes however small it is.
    """

    seconds: float
    macs: int
    per_mac: float


def layer_times(
    model: nn.Module, wiring: Wiring, example_inputs: Inputs, ranks: Ranks
) -> dict[str, LayerTime]:
    """Time of every weight layer in an inference on the example: of the network as it is, and of a quarter of it.

    Medians of several forwards; all that the network holds is restored afterwards. The layers of one recurrent module
    share its time by their MACs; one that inference does not call takes none. What other modules take is not counted.

    Args:
        model: the network.
        wiring: of it.
        example_inputs: whose batch size matters: give the one of inference.
        ranks: that train the network together; all take what the first measured.

    Raises:
        ValueError: no layer is called.
    """
    owners = {name: owner_of(layer.module) for name, layer in wiring.layers.items()}
    whole = _timed(model, owners.values(), example_inputs)
    macs = wiring.layer_macs()
    kept = what_remains(wiring, _few(wiring).removable(wiring))
    undo = keep_only(model, wiring, kept, ())
    try:
        quarter = _timed(model, owners.values(), wiring.with_states(example_inputs, kept.features))
    finally:
        undo()
    few = wiring.layer_macs(kept.units, kept.features)
    times: dict[str, LayerTime] = {}
    for owner in whole:
        names = [name for name, each in owners.items() if each is owner]
        total, left = (sum(each[name] for name in names) for each in (macs, few))
        saved = whole[owner] - quarter.get(owner, 0.0)
        # what does not shrink in the quarter counts as if all of it did
        per_mac = max(saved, 0.0) / (total - left) if left < total else whole[owner] / max(total, 1)
        per_mac = min(per_mac, whole[owner] / max(total, 1))
        for name in names:
            share = macs[name] / total if total else 1 / len(names)
            times[name] = LayerTime(whole[owner] * share, macs[name], per_mac)
    if not times:
        raise ValueError(
            "a target of latency needs weight layers that an inference on example_inputs calls, to be timed; this "
            'network calls none: choose target_of="macs"'
        )
    ordered = [times.get(name, LayerTime(0.0, macs[name], 0.0)) for name in owners]
    numbers = [number for one in ordered for number in (one.seconds, one.per_mac)]
    first, *_ = ranks.gather("share the times of layers", numbers)
    return {
        name: LayerTime(seconds, macs[name], per_mac)
        for name, seconds, per_mac in zip(owners, first[::2], first[1::2], strict=True)
    }


def _few(wiring: Wiring) -> Masks:
    """Every fourth unit of every layer alone is alive."""
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    for alive in masks.units.values():
        alive[torch.arange(len(alive), device=alive.device) % 4 != 0] = False
    return masks


def _timed(model: nn.Module, modules: Iterable[nn.Module], inputs: Inputs) -> dict[nn.Module, float]:
    """Median seconds of each module that is called, in a forward of the network."""
    watches = {module: _Watch() for module in modules}
    with frozen(model):
        handles = [handle for module, watch in watches.items() for handle in watch.hooks(module)]
        for _ in range(WARM_UP + REPEATS):
            reset_state(model, weights=False)
            for watch in watches.values():
                watch.forwards.append(0.0)
            run(model, inputs)
        for handle in handles:
            handle.remove()
    return {module: watch.seconds for module, watch in watches.items() if watch.called}


class _Watch:
    """Time that a module takes in each forward of its network."""

    def __init__(self) -> None:
        self.forwards: list[float] = []
        self.called = False
        self._begun = 0.0

    @property
    def seconds(self) -> float:
        return statistics.median(self.forwards[WARM_UP:])

    def hooks(self, module: nn.Module) -> list[Any]:
        return [module.register_forward_pre_hook(self._before), module.register_forward_hook(self._after)]

    def _before(self, module: nn.Module, *call: Any) -> None:
        self._begun = _now(module)

    def _after(self, module: nn.Module, *call: Any) -> None:
        self.forwards[-1] += _now(module) - self._begun
        self.called = True


def _now(module: nn.Module) -> float:
    """Time at which all that was asked of the module's device is done."""
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
