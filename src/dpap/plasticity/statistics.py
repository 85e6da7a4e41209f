"""Statistics of the activity of a weight layer, from which importance is computed."""

from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass
class Statistics:
    """Sums over the observed activity of one weight layer, from its features (pre) to its units (post).

    Attributes:
        threshold: theta of (4) per unit, where there is one; the released code keeps one per batch slot and unit.
        units: what the importance of units is made of, such as D of (7).
        activity: summed trace of each unit, where there is one.
        synapses: the same of synapses, such as summed BCM (6); None where single synapses do not die.
        timesteps: the same of neuron-timesteps, such as (8); None where they do not die.
        samples: samples observed since the start of training.
        batches: batches observed since the start of training.
    """

    threshold: Float[Tensor, "*slot unit"]
    units: Float[Tensor, " unit"]
    activity: Float[Tensor, " unit"]
    synapses: Float[Tensor, "unit feature"] | None = None
    timesteps: Float[Tensor, "time unit"] | None = None
    samples: int = 0
    batches: int = 0

    def keep(
        self, units: Int[Tensor, " kept_unit"] | None, features: Int[Tensor, " kept_feature"] | None
    ) -> None:
        """Drop all but the given units and features, by position; None keeps all of them."""
        if units is not None:
            self.threshold = self.threshold.index_select(-1, units)
            self.units = self.units.index_select(0, units)
            self.activity = self.activity.index_select(0, units)
            if self.synapses is not None:
                self.synapses = self.synapses.index_select(0, units)
            if self.timesteps is not None:
                self.timesteps = self.timesteps.index_select(1, units)
        if features is not None and self.synapses is not None:
            self.synapses = self.synapses.index_select(1, features)

    def copy(self) -> "Statistics":
        """The same values in tensors of their own."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        own: dict[str, Any] = {
            name: value.clone() if isinstance(value, Tensor) else value for name, value in values.items()
        }
        return Statistics(**own)

    def finite(self) -> Bool[Tensor, ""]:
        """Whether every sum is a finite number; a tensor, so that a device need not be waited for."""
        sums = (self.threshold, self.units, self.activity, self.synapses, self.timesteps)
        return torch.stack([each.isfinite().all() for each in sums if each is not None]).all()

    def parts(self, number: int) -> list["Statistics"]:
        """Equal parts of the units, in order, which share the sums with these statistics."""

        def cut(tensor: Tensor | None) -> list[Tensor] | list[None]:
            return [None] * number if tensor is None else list(tensor.chunk(number, -1))

        if self.synapses is not None:
            raise ValueError(
                "statistics of synapses are those of a fully connected layer, which has no parts"
            )
        return [
            Statistics(threshold, units, activity, None, timesteps, self.samples, self.batches)
            for threshold, units, activity, timesteps in zip(
                self.threshold.chunk(number, -1),
                self.units.chunk(number),
                self.activity.chunk(number),
                cut(self.timesteps),
                strict=True,
            )
        ]

    def rejoin(self, parts: list["Statistics"]) -> None:
        """Take over from the parts what they do not share: thresholds and counts."""
        self.threshold = torch.cat([part.threshold for part in parts], -1)
        self.samples, self.batches = parts[0].samples, parts[0].batches

    def of_synapses(self) -> Float[Tensor, "unit feature"]:
        """The sums of synapses.

        Raises:
            ValueError: these statistics are not of synapses.
        """
        if self.synapses is None:
            raise ValueError("these statistics are not of synapses: make them with blank(..., synapses=True)")
        return self.synapses

    def of_timesteps(self) -> Float[Tensor, "time unit"]:
        """The sums of neuron-timesteps.

        Raises:
            ValueError: these statistics are not of timesteps.
        """
        if self.timesteps is None:
            raise ValueError("these statistics are not of timesteps: make them with blank(..., timesteps=T)")
        return self.timesteps

    def fade_sums(self, memory: float) -> None:
        """Keep this share of the sums, 0 for none; threshold and counts stay."""
        for tensor in (self.units, self.activity, self.synapses, self.timesteps):
            if tensor is not None:
                tensor.mul_(memory) if memory else tensor.zero_()

    def state_dict(self) -> dict[str, Tensor | int]:
        """Copies of the tensors, and the counts; what is not kept is left out."""
        state: dict[str, Tensor | int] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None:
                state[item.name] = value.clone() if isinstance(value, Tensor) else value
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, on this device and in this precision.

        Raises:
            ValueError: the state is of a layer of another size, or of another kind.
        """
        expected = set(self.state_dict())
        if not isinstance(state, dict) or set(state) != expected:
            raise ValueError(
                f"the state of a layer's statistics must hold {sorted(expected)}; got {_shown(state)}: "
                "load it into a pruner of the configuration that saved it"
            )
        for name, value in state.items():
            current = getattr(self, name)
            if isinstance(value, Tensor) != isinstance(current, Tensor) or not isinstance(
                value, Tensor | int
            ):
                raise ValueError(
                    f"'{name}' of a layer's statistics must be of type {type(current).__name__}; got "
                    f"{value!r:.60}: load it as it was saved"
                )
            if not isinstance(value, Tensor):
                continue
            # Batch slots differ in number, and appear with the first batch.
            matches = value.shape[-1:] == current.shape[-1:] and value.dim() == current.dim()
            if not matches or (name != "threshold" and value.shape != current.shape):
                raise ValueError(
                    f"'{name}' of a layer's statistics must have shape {tuple(current.shape)}; got "
                    f"{tuple(value.shape)}: shrink the network to the saved structure first"
                )
        for name, value in state.items():
            current = getattr(self, name)
            setattr(self, name, value.to(current, copy=True) if isinstance(current, Tensor) else int(value))


def _shown(state: Any) -> str:
    return str(list(state)) if isinstance(state, dict) else f"{state!r:.60}"
