"""Record the activity of a network while it trains: per sample, unit and timestep, summed over the map.

Space is summed first and no spike is kept, so recording reads each activity once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dpap.anatomy.dye import Site
from dpap.anatomy.wiring import NeuronSite, Projection, Wiring


@dataclass(frozen=True)
class Recording:
    """What was active in one forward pass of the network.

    Attributes:
        inputs: projection -> activity of its input features [T, B, features], for convolutions their sum
            over features [T, B, 1], which is all that they need.
        outputs: neurons -> activity of their units [T, B, features].
    """

    inputs: dict[str, Float[Tensor, "_ _ _"]]
    outputs: dict[Site, Float[Tensor, "_ _ _"]]


def _map_summed(activity: Tensor, axis: int) -> Float[Tensor, "*lead feature"]:
    """Sum over everything behind the feature axis (from the end), in at least single precision."""
    if axis == -1:
        return activity
    precision = torch.promote_types(activity.dtype, torch.float32)
    return activity.flatten(activity.ndim + axis + 1).sum(-1, dtype=precision)


class Recorder:
    """Hooks that record every n-th training forward of a network and hand it on at the forward's end.

    Args:
        model: the network; forwards in evaluation mode are not recorded.
        wiring: its wiring.
        every: record every n-th forward.
        receive: called with each recording.
    """

    def __init__(
        self, model: nn.Module, wiring: Wiring, every: int, receive: Callable[[Recording], None]
    ) -> None:
        self.every = every
        self.receive = receive
        self.forwards = 0
        self._on = False
        self._inputs: dict[str, list[Tensor]] = {}
        self._outputs: dict[Site, list[Tensor]] = {}
        self._calls: dict[str, int] = {}
        self._sites: dict[str, dict[int, NeuronSite]] = {}
        seen = {projection.neuron for projection in wiring.projections.values()}
        for site, neuron in wiring.neurons.items():
            if site in seen:
                self._sites.setdefault(site.module, {})[site.call] = neuron
        modules = dict(model.named_modules())
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._finish),
        ]
        for projection in wiring.projections.values():
            if projection.fate != "whole":
                hook = self._input_hook(projection)
                self._handles.append(projection.module.register_forward_pre_hook(hook))
        for name in self._sites:
            self._handles.append(modules[name].register_forward_hook(self._output_hook(name)))

    def remove(self) -> None:
        """Take the hooks out of the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _begin(self, model: nn.Module, args: Any) -> None:
        self._on = model.training and torch.is_grad_enabled()
        if self._on:
            self._on = self.forwards % self.every == 0
            self.forwards += 1
        self._inputs.clear()
        self._outputs.clear()
        self._calls.clear()

    def begin_epoch(self) -> None:
        """Count from anew, so that every epoch records its first forward."""
        self.forwards = 0

    def _input_hook(self, projection: Projection) -> Callable[..., None]:
        name, axis, whole = projection.name, projection.kind.activity_axis, projection.kind.name == "conv"

        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if not self._on:
                return
            activity = args[0].detach()
            summed = _map_summed(activity.unsqueeze(axis - 1), axis - 1) if whole else activity
            self._inputs.setdefault(name, []).append(summed)

        return hook

    def _output_hook(self, name: str) -> Callable[..., None]:
        sites = self._sites[name]
        steps = next(iter(sites.values())).time_axis is None and next(iter(sites.values())).spikes

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if not self._on:
                return
            call = self._calls.get(name, 0)
            self._calls[name] = call + 1
            # a neuron stepped in a loop is one site per call on the example; its first carries them all
            neuron = sites.get(call) or (next(iter(sites.values())) if steps else None)
            if neuron is None:
                return
            activity = (output[0] if isinstance(output, tuple) else output).detach()
            self._outputs.setdefault(neuron.site, []).append(_map_summed(activity, neuron.axis))

        return hook

    def _finish(self, model: nn.Module, args: Any, output: Any) -> None:
        if not self._on:
            return
        self._on = False
        outputs = {}
        time, batch, time_first = 1, 0, True
        for site, calls in self._outputs.items():
            neuron = self._sites[site.module][site.call]
            outputs[site] = _time_batch(calls, neuron.time_axis)
            if neuron.spikes:
                time, batch = outputs[site].shape[:2]
                time_first = neuron.time_axis in (None, 0)
            batch = batch or outputs[site].shape[1]
        inputs = {
            name: _unfolded(calls, time, batch, time_first) for name, calls in self._inputs.items() if calls
        }
        self._inputs.clear()
        self._outputs.clear()
        if batch:
            self.receive(Recording(inputs, outputs))


def _time_batch(calls: list[Tensor], time_axis: int | None) -> Float[Tensor, "time batch unit"]:
    """The calls of one neuron site as [T, B, units]; axes between batch and units are summed."""
    if time_axis is None:
        stacked = torch.stack(calls) if len(calls) > 1 else calls[0].unsqueeze(0)
    else:
        stacked = calls[0].movedim(time_axis, 0)
    return stacked.flatten(2, -2).sum(2) if stacked.ndim > 3 else stacked


def _unfolded(calls: list[Tensor], time: int, batch: int, time_first: bool) -> Float[Tensor, "_ _ _"]:
    """The calls of one projection as [T, B, features], with T = 1 for an input that is constant over time."""
    features = calls[0].shape[-1]
    if len(calls) > 1:
        return torch.stack([call.reshape(batch, -1, features).sum(1) for call in calls])
    flat = calls[0].reshape(-1, features)
    if time == 1 or len(flat) % (time * batch) != 0:
        return flat.reshape(batch, -1, features).sum(1).unsqueeze(0)
    if time_first:
        return flat.reshape(time, batch, -1, features).sum(2)
    return flat.reshape(batch, time, -1, features).sum(2).transpose(0, 1)
