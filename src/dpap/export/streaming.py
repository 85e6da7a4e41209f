"""One timestep of a network, with its membranes as arguments and results."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpap.anatomy import neuron_kind
from dpap.export.calls import Call, Outcome, outcome, samples_of
from dpap.export.neurons import Rated, leak, rated, replaced_forwards
from dpap.export.report import MOST_FLIPPED, ExportError
from dpap.spiking import SpikingNeuron
from dpap.surgery.timesteps import BUFFER


@dataclass
class Stepper:
    """Runs a timestep.

    Attributes:
        model: the network, of which forwards count time first.
        neurons: in it.
        call: what it takes: frames [1, B, ...] of the example.
        frames: of the example, one for each timestep: lists of tensors [B, ...].
        names: of the membranes, in the order in which neurons are called.
        rest: membranes at the start.
        silenced: masks of silenced timesteps [T, units], by the module that has them; a timestep's number is an
            argument where there are any.
    """

    model: nn.Module
    neurons: dict[str, Rated]
    call: Call
    frames: list[list[Tensor]]
    names: list[str]
    rest: list[Tensor]
    silenced: dict[nn.Module, Tensor]

    def __call__(
        self, frame: list[Tensor], states: list[Tensor], timestep: Tensor | None
    ) -> tuple[Any, list[Tensor]]:
        """What the network returns for a frame, and the membranes after it."""
        before = iter(states)
        after: list[Tensor] = []
        try:
            for module, mask in self.silenced.items():
                module._buffers[BUFFER] = mask.index_select(0, timestep) if timestep is not None else mask[:1]
            with replaced_forwards(self.neurons, partial(_step, before, after)):
                returned = self.call.run(self.model, [each.unsqueeze(0) for each in frame])
        finally:
            for module, mask in self.silenced.items():
                module._buffers[BUFFER] = mask
        return returned, after

    @property
    def membranes(self) -> list[str]:
        """Names of the arguments."""
        return [f"{name}.membrane" for name in self.names]

    @property
    def next_membranes(self) -> list[str]:
        """Names of the results."""
        return [f"{name}.membrane.next" for name in self.names]

    def of_samples(self, count: int) -> "Stepper":
        """With so many samples: the first ones, or all of them again and again."""
        frames = [[samples_of(each, 0, count) for each in frame] for frame in self.frames]
        return replace(self, frames=frames, rest=[samples_of(each, 0, count) for each in self.rest])

    def first(self) -> Outcome:
        """The first timestep of the example."""
        return replace(self, frames=self.frames[:1]).whole()[0]

    def whole(self) -> list[Outcome]:
        """Every timestep of the example."""
        states, outcomes = self.rest, []
        for t, frame in enumerate(self.frames):
            number = torch.tensor([t], device=frame[0].device) if self.silenced else None
            kept: list[Tensor] = []

            def forward(
                frame: list[Tensor] = frame,
                states: list[Tensor] = states,
                number: Tensor | None = number,
                kept: list[Tensor] = kept,
            ) -> Any:
                returned, after = self(frame, states, number)
                kept += after
                return returned

            outcomes.append(outcome(self.model, forward))
            states = kept
        return outcomes


def _step(before: Iterator[Tensor], after: list[Tensor], name: str, own: Rated, current: Tensor) -> Tensor:
    neuron, v, x = own.neuron, next(before), current[0]
    h = leak(v, x.to(v.dtype), own.rate)
    fired = h >= neuron.threshold
    after.append(torch.where(fired, 0.0 if neuron.reset == "hard" else h - neuron.threshold, h))
    return fired.to(x.dtype).unsqueeze(0)


def stepper_of(model: nn.Module, call: Call, batch_axis: int) -> Stepper:
    """From a network and an example of a whole presentation, or of an image that the network shows for some time.

    Raises:
        ExportError: where the network cannot be run one timestep at a time.
    """
    _only_own_neurons(model)
    whole = outcome(model, lambda: call.run(model, call.tensors))
    if not whole.spikes.tensors:
        raise ExportError("step=True keeps membranes from call to call; this network ran no spiking neurons")
    steps = {len(each) for each in whole.spikes.tensors}
    if len(steps) > 1:
        raise ExportError(
            f"step=True needs neurons that all see the same timesteps; here they see {sorted(steps)}"
        )
    count = steps.pop()
    tensors = call.tensors
    if batch_axis == 1:
        frames = [[each[t] for each in tensors] for t in range(count)]
    else:
        frames = [tensors] * count
    silenced = {
        module: mask for module in model.modules() if isinstance(mask := module._buffers.get(BUFFER), Tensor)
    }
    states = [
        each.new_zeros(each.shape[1:], dtype=torch.promote_types(each.dtype, torch.float32))
        for each in whole.spikes.tensors
    ]
    stepper = Stepper(model, rated(model), call, frames, whole.spikes.names, states, silenced)
    try:
        outcomes = stepper.whole()
    except Exception as error:
        raise ExportError(
            "step=True needs a network that takes frames [time, batch, ...] of any time, also of one timestep; given "
            f"one it failed: {type(error).__name__}: {error}"
        ) from error
    _check(whole, outcomes, count)
    return stepper


def _only_own_neurons(model: nn.Module) -> None:
    foreign = sorted(
        f"{name} ({type(module).__name__})"
        for name, module in model.named_modules()
        if not isinstance(module, SpikingNeuron) and (kind := neuron_kind(module)) is not None and kind.spikes
    )
    if foreign:
        raise ExportError(
            f"step=True keeps the membranes of dpap.spiking's neurons; found {', '.join(foreign)}: export, without "
            "step, a network whose forward is one timestep and takes and returns its membranes"
        )


def _check(whole: Outcome, steps: list[Outcome], count: int) -> None:
    """Timestep by timestep the same spikes as in the whole presentation."""
    flipped = total = 0
    for place, spikes in enumerate(whole.spikes.tensors):
        single = [each.spikes.tensors[place] for each in steps if place < len(each.spikes.tensors)]
        if len(single) != count or any(each.shape != spikes[:1].shape for each in single):
            raise ExportError(
                f"step=True needs a network that runs each of its neurons on one timestep when it is given one; "
                f"{whole.spikes.names[place]} got {[tuple(each.shape) for each in single[:1]]} instead of "
                f"{tuple(spikes[:1].shape)}"
            )
        flipped += int((torch.cat(single) != spikes).sum())
        total += spikes.numel()
    if flipped > max(1, MOST_FLIPPED * total):
        raise ExportError(
            f"step=True needs a network whose timesteps depend on earlier ones by its membranes alone; timestep by "
            f"timestep {flipped:,} of {total:,} spikes are others than in a whole presentation"
        )
