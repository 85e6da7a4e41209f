"""Record the activity of a network while it trains: per sample, unit and timestep, summed over the map.

Space is summed first and no spike is kept, so recording reads each activity once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from dpap.anatomy.observing.axes import Activity, ActivityAxes, map_summed
from dpap.anatomy.observing.hooks import Around, Hook, in_backward, in_transform
from dpap.anatomy.observing.sampling import StepSampler
from dpap.anatomy.pytrees import all_tensors, first_float, is_float
from dpap.anatomy.staining.dye import Site
from dpap.anatomy.wiring import WeightLayer, Wiring


@dataclass(frozen=True)
class Recording:
    """What was active in one presentation to the network.

    Attributes:
        inputs: weight layer -> activity of its input features [T, B, features], for convolutions and recurrent
            layers its sum over the features of each group [T, B, groups], which is all that they need.
        outputs: neurons -> activity of their units, or of the features that these feed [T, B, features].
    """

    inputs: dict[str, Activity]
    outputs: dict[Site, Activity]

    @property
    def batch(self) -> int:
        """Samples."""
        return next(iter(self.outputs.values())).shape[1]


@dataclass
class _Forward:
    """What was recorded of one forward so far, call by call; `batches`: what its number of samples may be."""

    batches: list[int]
    recorded: bool = True
    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    outputs: dict[str, list[Tensor]] = field(default_factory=dict)
    entering: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Samples: the first size that was given of which every activity holds a multiple, else the first there is."""
        calls = [
            call
            for part in (self.inputs, self.outputs, self.entering)
            for one in part.values()
            for call in one
        ]
        rows = [call.numel() // max(call.shape[-1], 1) for call in calls]
        fitting = [size for size in self.batches if size and all(number % size == 0 for number in rows)]
        if fitting or self.batches:
            return (fitting or self.batches)[0]
        return len(calls[0]) if calls and calls[0].ndim > 1 else 1


def check_recordable(wiring: Wiring) -> None:
    """Check that the activity of every weight layer whose units may die can be recorded.

    Raises:
        ValueError: where units are inside a recurrent module: those of all layers but the last, and under a
            projection.
    """
    hidden = [
        layer.name
        for layer in wiring.layers.values()
        if layer.can_die and (layer.neuron is None or layer.entry is None)
    ]
    if hidden:
        raise ValueError(
            f"the activity of {', '.join(hidden)} stays inside a recurrent module, where it cannot be recorded; use a "
            'criterion that needs none ("taylor_strength", "magnitude"), or one module for each layer, without '
            "projection"
        )


class Recorder:
    """Hooks that record one of every n presentations in training and pass it on when it ends.

    A presentation is a forward. Where forwards are single timesteps, because the spiking neurons keep their state
    from call to call, it is all of those between two steps of the optimizers.

    Args:
        model: the network; forwards in evaluation mode are not recorded.
        wiring: its wiring.
        every: record one of every n presentations.
        receive: called with each recording.
        optimizers: their steps end the presentations of a stepped network; without any, each timestep is one.
        active: whether anything is recorded now.
    """

    def __init__(
        self,
        model: nn.Module,
        wiring: Wiring,
        every: int,
        receive: Callable[[Recording], None],
        optimizers: Sequence[Optimizer] = (),
        active: Callable[[], bool] = lambda: True,
    ) -> None:
        self.active = active
        self.receive = receive
        self.sampler = StepSampler(every)
        self._stepped = wiring.stepped and bool(optimizers)
        self._steps: list[Recording] = []
        self._begun = False
        self._chosen = False
        self._now = _Forward([], recorded=False)
        self._seen = False
        needed = {layer.neuron for layer in wiring.layers.values()}
        self._sites = [neuron for site, neuron in wiring.neurons.items() if site in needed]
        # time is taken from all neurons that spike, also where activity is recorded earlier
        self._spiking = [neuron for neuron in wiring.neurons.values() if neuron.spikes]
        self._handles: list[RemovableHandle | Around] = [
            Around(model, "before", self._begin),
            Around(model, "after", self._finish),
        ]
        entered = {neuron.name for neuron in self._sites if neuron.incoming}
        for name, layer in wiring.layers.items():
            if layer.entry is not None and (layer.prunability != "whole" or name in entered):
                hook = Hook(self._input_hook(layer, name in entered), compiled=True)
                self._handles.append(layer.entry.register_forward_pre_hook(hook, with_kwargs=True))
        modules = dict(model.named_modules())
        emitting = [neuron for neuron in (*self._sites, *self._spiking) if not neuron.incoming]
        for name, axis in {neuron.name: neuron.axis for neuron in emitting}.items():
            self._handles.append(
                modules[name].register_forward_hook(Hook(self._output_hook(name, axis), compiled=True))
            )
        if self._stepped:
            for optimizer in optimizers:
                self._handles.append(
                    optimizer.register_step_post_hook(Hook(lambda *step: self.end_presentation()))
                )

    @property
    def recording(self) -> bool:
        """Whether the forward that runs now is recorded."""
        return self._now.recorded

    def remove(self) -> None:
        """Remove the hooks from the network and the optimizers."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def begin_epoch(self) -> None:
        """Count from anew, so that every epoch records its first presentations."""
        self.end_presentation()
        self.sampler.begin_epoch()

    def end_presentation(self) -> None:
        """Pass on what was recorded of a stepped network so far."""
        self._begun = False
        steps, self._steps = self._steps, []
        if steps:
            self.receive(_joined(steps))

    def _begin(self, model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        self._now = _Forward([], recorded=False)
        again = in_backward()
        if again and self._seen:
            # a checkpoint runs it again, and it was recorded the first time
            return
        if not again:
            self._seen = model.training and torch.is_grad_enabled()
        if in_transform() or not (model.training and torch.is_grad_enabled() and self.active()):
            return
        if not self._begun:
            self._chosen = self.sampler.take()
            self._begun = self._stepped
        if self._chosen:
            self._now = _Forward(_batches((args, options)))

    def _input_hook(self, layer: WeightLayer, entered: bool) -> Callable[..., None]:
        name, axis, whole = layer.name, layer.kind.activity_axis, layer.kind.name != "fc"

        def hook(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if not self._takes():
                return
            activity = _real(first_float(args, options))
            grouped = activity.unflatten(axis, (layer.groups, -1)) if whole else activity
            summed = map_summed(grouped, axis - 1 if whole else axis)
            self._now.inputs.setdefault(name, []).append(summed)
            if entered:
                features = map_summed(activity, axis) if whole else summed
                self._now.entering.setdefault(name, []).append(features)

        return hook

    def _output_hook(self, name: str, axis: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self._takes():
                spikes = _real(output if isinstance(output, Tensor) else first_float(output))
                self._now.outputs.setdefault(name, []).append(map_summed(spikes, axis))

        return hook

    def _takes(self) -> bool:
        """Whether layers give their activity now.

        A compiled network always does, or it would be compiled twice: what is not recorded is dropped in the end.
        """
        return torch.is_grad_enabled() if torch.compiler.is_compiling() else self._now.recorded

    def _finish(self, model: nn.Module, *forward: Any) -> None:
        now, self._now = self._now, _Forward([], recorded=False)
        recording = self._recording(now) if now.recorded else None
        if recording is None:
            return
        if not self._stepped:
            self.receive(recording)
            return
        if self._steps and self._steps[0].batch != recording.batch:
            self.end_presentation()
            self._begun = True
        self._steps.append(recording)

    def _recording(self, now: _Forward) -> Recording | None:
        axes = self._activity_axes(now)
        if axes is None:
            return None
        outputs, inputs = {}, {}
        for neuron in self._sites:
            calls = (now.entering if neuron.incoming else now.outputs).get(neuron.name, [])
            if neuron.spikes:
                activity = axes.of_spikes(calls, neuron.time_axis)
            else:
                activity = axes.unfolded(calls if neuron.incoming else axes.of_call(calls, neuron.site.call))
            if activity is not None:
                outputs[neuron.site] = activity
        for name, calls in now.inputs.items():
            activity = axes.unfolded(calls)
            if activity is not None:
                inputs[name] = activity
        return Recording(inputs, outputs) if outputs else None

    def _activity_axes(self, now: _Forward) -> ActivityAxes | None:
        """Time and batch of the first spiking neurons (with T > 1, if any), else the batch of the network's input.

        None where there is no sample.
        """
        candidates = [
            ActivityAxes.of(now.outputs[neuron.name], neuron.time_axis)
            for neuron in self._spiking
            if now.outputs.get(neuron.name)
        ]
        if candidates:
            axes = next((axes for axes in candidates if axes.time > 1), candidates[0])
        else:
            axes = ActivityAxes(1, now.batch)
        return axes if axes.batch and axes.time else None


def _batches(given: Any) -> list[int]:
    """Sizes of the first axes of the tensors that a network is given, those of numbers before tokens and masks."""
    tensors = sorted(all_tensors(given), key=lambda tensor: not is_float(tensor))
    return [len(tensor) for tensor in tensors if tensor.ndim]


def _real(activity: Tensor) -> Tensor:
    """Activity without its graph; of complex numbers their size."""
    activity = activity.detach()
    return activity.abs() if activity.is_complex() else activity


def _joined(steps: list[Recording]) -> Recording:
    """The timesteps of one presentation, one after the other."""

    def over_time(activities: list[dict[Any, Activity]]) -> dict[Any, Activity]:
        return {
            key: torch.cat([activity[key] for activity in activities])
            for key in activities[0]
            if all(key in activity for activity in activities)
        }

    return Recording(over_time([step.inputs for step in steps]), over_time([step.outputs for step in steps]))
