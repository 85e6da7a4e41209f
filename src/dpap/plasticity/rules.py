"""The two rule sets behind one interface: the paper's equations, and the authors' released code."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dpap.plasticity.memory import Memory
from dpap.plasticity.spines import spines
from dpap.plasticity.survival import exponential_decay, normalise, staircase_decay
from dpap.plasticity.synapses import bcm, potentiation, sliding_threshold
from dpap.plasticity.timesteps import timestep_importance
from dpap.plasticity.traces import trace


class RuleSet(ABC):
    """How observed activity becomes importance, and importance a change of survival.

    Attributes:
        name: its key in `RULES`.
        strict: whether (10) protects delta > 0 only, rather than delta >= 0.
        slots: whether theta is kept per batch slot, which appear with the batches, rather than per unit.
    """

    name: ClassVar[str]
    strict: ClassVar[bool]
    slots: ClassVar[bool] = False

    def blank(
        self,
        units: int,
        features: int,
        *,
        synapses: bool,
        timesteps: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Memory:
        """The memory of a projection that nothing has been observed of.

        `synapses`: whether single synapses can die; `timesteps`: how many there are, if they can die.
        """

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return Memory(
            threshold=zeros(0, units) if self.slots else zeros(units),
            spines=zeros(units),
            activity=zeros(units),
            synapses=zeros(units, features) if synapses else None,
            timesteps=zeros(timesteps, units) if timesteps is not None else None,
        )

    def trace(self, counts: Float[Tensor, "time batch unit"], decay: float) -> Float[Tensor, "batch unit"]:
        """Final activity trace of a batch."""
        return trace(counts, decay)

    @torch.no_grad()
    def observe(
        self,
        memory: Memory,
        pre: Float[Tensor, "batch feature"],
        post: Float[Tensor, "batch unit"],
        pre_total_over_time: Float[Tensor, "time batch"] | None = None,
        post_over_time: Float[Tensor, "time batch unit"] | None = None,
    ) -> None:
        """Add one batch to the memory, in place.

        `pre` and `post` are final traces; the others what `timesteps.timestep_importance` takes.

        Raises:
            ValueError: the memory is one of timesteps, and their activity is missing.
        """
        with torch.autocast(post.device.type, enabled=False):
            pre, post = pre.to(memory.spines.dtype), post.to(memory.spines.dtype)
            threshold = self._threshold(memory, len(post))
            memory.spines += self._spines(pre.sum(1), post, threshold)
            memory.activity += post.sum(0)
            if memory.synapses is not None:
                memory.synapses.addmm_(potentiation(post, threshold).T, pre)
            if memory.timesteps is not None:
                if pre_total_over_time is None or post_over_time is None:
                    raise ValueError(
                        "this memory counts neuron-timesteps: observe needs pre_total_over_time and "
                        "post_over_time, got None"
                    )
                memory.timesteps += timestep_importance(
                    pre_total_over_time.to(memory.timesteps.dtype), post_over_time.to(memory.timesteps.dtype)
                )
            self._slide(memory, post)
        memory.samples += len(post)
        memory.batches += 1

    @abstractmethod
    def _threshold(self, memory: Memory, batch: int) -> Float[Tensor, "*slot unit"]:
        """Theta as a batch of this size sees it."""

    @abstractmethod
    def _spines(
        self,
        pre_total: Float[Tensor, " batch"],
        post: Float[Tensor, "batch unit"],
        threshold: Float[Tensor, "*slot unit"],
    ) -> Float[Tensor, " unit"]:
        """What one batch adds to the spines."""

    @abstractmethod
    def _slide(self, memory: Memory, post: Float[Tensor, "batch unit"]) -> None:
        """Move theta on by one batch."""

    @abstractmethod
    def begin_epoch(self, memory: Memory) -> None:
        """Prepare the memory for another epoch of observing."""

    @abstractmethod
    def unit_importance(self, memory: Memory) -> Float[Tensor, " unit"]:
        """Importance of each neuron or channel. Like the next two, maybe the sums themselves: read only."""

    def synapse_importance(self, memory: Memory) -> Float[Tensor, "unit feature"]:
        """Importance of each synapse, (6).

        Raises:
            ValueError: the memory is not one of synapses.
        """
        if memory.synapses is None:
            raise ValueError("this memory counts no synapses: make it with blank(..., synapses=True)")
        return memory.synapses

    def timestep_importance(self, memory: Memory) -> Float[Tensor, "time unit"]:
        """Importance of each neuron-timestep, (8); the released code has none and takes the paper's.

        Raises:
            ValueError: the memory is not one of timesteps.
        """
        if memory.timesteps is None:
            raise ValueError("this memory counts no timesteps: make it with blank(..., timesteps=T)")
        return memory.timesteps

    @abstractmethod
    def normalise(
        self, importance: Float[Tensor, "*unit"], alive: Bool[Tensor, "*unit"], clip: float = 1.0
    ) -> Float[Tensor, "*unit"]:
        """Importance mapped to [0, 1] within its layer, as (9) takes it; 1 from the quantile `clip` on."""

    @abstractmethod
    def decay(self, epoch: int, eta: float) -> float:
        """Weight of the change of survival in (11) at an epoch, counted from 0."""


class Paper(RuleSet):
    """The equations: sums of one epoch, theta per neuron, min-max over the living, continuous decay."""

    name = "paper"
    strict = False

    def _threshold(self, memory: Memory, batch: int) -> Float[Tensor, " unit"]:
        return memory.threshold

    def _spines(
        self,
        pre_total: Float[Tensor, " batch"],
        post: Float[Tensor, "batch unit"],
        threshold: Float[Tensor, "*slot unit"],
    ) -> Float[Tensor, " unit"]:
        return spines(pre_total, post, threshold)

    def _slide(self, memory: Memory, post: Float[Tensor, "batch unit"]) -> None:
        memory.threshold = sliding_threshold(memory.threshold, memory.samples, post)

    def begin_epoch(self, memory: Memory) -> None:
        memory.forget()

    def unit_importance(self, memory: Memory) -> Float[Tensor, " unit"]:
        return memory.spines

    def normalise(
        self, importance: Float[Tensor, "*unit"], alive: Bool[Tensor, "*unit"], clip: float = 1.0
    ) -> Float[Tensor, "*unit"]:
        return normalise(importance, alive, clip)

    def decay(self, epoch: int, eta: float) -> float:
        return exponential_decay(epoch, eta)


class Released(RuleSet):
    """The authors' released code, formula for formula.

    Traces are divided by T, sums are never reset, theta is kept per batch slot, spines are the product of
    two normalised totals, the 75th percentile clips, the dead stay in the normalisation (until they are
    removed), and the decay is a staircase that starts at epoch 5. Their code knows one batch size; here a
    smaller batch moves its own slots only, and slots that appear late start at the mean of the others.
    """

    name = "released"
    strict = True
    slots = True

    def trace(self, counts: Float[Tensor, "time batch unit"], decay: float) -> Float[Tensor, "batch unit"]:
        return trace(counts, decay) / len(counts)

    def _threshold(self, memory: Memory, batch: int) -> Float[Tensor, "batch unit"]:
        slots = len(memory.threshold)
        if batch > slots:
            start = memory.threshold.mean(0) if slots else memory.activity.new_zeros(len(memory.activity))
            late = start.expand(batch - slots, -1)
            memory.threshold = torch.cat([memory.threshold, late])
        return memory.threshold[:batch]

    def _spines(
        self,
        pre_total: Float[Tensor, " batch"],
        post: Float[Tensor, "batch unit"],
        threshold: Float[Tensor, "*slot unit"],
    ) -> Float[Tensor, " unit"]:
        return bcm(pre_total[:, None], post, threshold)[:, 0]

    def _slide(self, memory: Memory, post: Float[Tensor, "batch unit"]) -> None:
        slots = memory.threshold[: len(post)]
        slots.mul_(memory.batches).add_(post).div_(memory.batches + 1)

    def begin_epoch(self, memory: Memory) -> None:
        return

    def unit_importance(self, memory: Memory) -> Float[Tensor, " unit"]:
        everyone = torch.ones_like(memory.spines, dtype=torch.bool)
        return normalise(memory.spines, everyone) * normalise(memory.activity, everyone)

    def normalise(
        self, importance: Float[Tensor, "*unit"], alive: Bool[Tensor, "*unit"], clip: float = 1.0
    ) -> Float[Tensor, "*unit"]:
        # always at the 75th percentile, whatever is asked for
        return normalise(importance, torch.ones_like(alive), quantile=0.75)

    def decay(self, epoch: int, eta: float) -> float:
        return staircase_decay(epoch, eta, start=5)


RULES: dict[str, RuleSet] = {rules.name: rules for rules in (Paper(), Released())}
