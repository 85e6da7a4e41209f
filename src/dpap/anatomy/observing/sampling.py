"""Which of many steps are observed, so that no loop keeps in step with the observer."""

GOLDEN, SILVER = (5**0.5 - 1) / 2, 2**0.5 - 1
"""Of multiples of an irrational number, what follows the point is evenly spread, also of every p-th of them (Weyl)."""
UNSAMPLED = {"steps": 0, "blocks": 0}
"""State of a sampler before the first step."""


class StepSampler:
    """Takes one of every n steps, at a place that changes from block to block of n steps.

    A fixed stride would meet the same of tasks, domains or branches again and again where a loop alternates between
    them; places that follow an irrational number meet all alike, whatever the loop's period. Of an epoch's first n
    steps all are taken, so that short epochs are seen whole.

    Args:
        every: n.

    Attributes:
        steps: since the epoch began.
        blocks: of n steps, begun in earlier epochs.

    Example:
        >>> sampler = StepSampler(4)
        >>> [step for step in range(24) if sampler.take()]
        [0, 1, 2, 3, 6, 8, 15, 17, 20]
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.steps = self.blocks = 0

    @property
    def takes_next(self) -> bool:
        """Whether the step that comes is taken."""
        block, place = divmod(self.steps, self.every)
        return block == 0 or place == _spread(self.blocks + block, GOLDEN, self.every)

    def take(self) -> bool:
        """Count a step; whether it is taken."""
        taken = self.takes_next
        self.steps += 1
        return taken

    def again(self) -> None:
        """Take the step that comes in the place of the last one."""
        self.steps -= 1

    def takes_also(self, of: int) -> bool:
        """Whether the step that was taken last is one of every so many that are taken."""
        block = (self.steps - 1) // self.every
        return block == 0 or _spread(self.blocks + block, SILVER, of) == 0

    def begin_epoch(self) -> None:
        """Count the steps of an epoch from anew."""
        self.blocks += -(-self.steps // self.every)
        self.steps = 0

    def state(self) -> dict[str, int]:
        """Where it is."""
        return {"steps": self.steps, "blocks": self.blocks}

    def load_state(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.steps, self.blocks = state["steps"], state["blocks"]


def _spread(number: int, irrational: float, places: int) -> int:
    return int(places * (number * irrational % 1))
