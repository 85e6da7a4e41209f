"""Several processes that train one network together, each on its own samples: what they observe is reduced, and what
they decide is the same.

Every rank keeps the whole network and computes the same deaths from the same sums. So a rank adds up what it observes,
and the increments of all ranks are summed when something may die. All exchange is by all-reduce and broadcast, which
every backend has on every device that it trains on.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dpap.anatomy import Wiring
from dpap.anatomy.pytrees import Inputs, all_tensors, map_tensors
from dpap.plasticity import CRITERIA
from dpap.pruning.config import PruningConfig
from dpap.pruning.wrappers import check_whole, wrappers_of

DIFFERENT = (
    "ranks that train one network together hold the same weights after every step: average its gradients, as "
    "torch.nn.parallel.DistributedDataParallel does, and change weights on all of them or none; networks that ranks "
    "train each on its own are pruned by Pruners made before init_process_group"
)
"""What to do where ranks disagree."""

FEW = 256
"""So many numbers travel with the check that all ranks came for the same."""

DIGEST = 2**48
"""Digests are numbers below this, which double precision holds exactly."""


class RanksError(RuntimeError):
    """Ranks do not do the same, or one of them has ended."""


class Ranks:
    """The processes that train one network together: those of its DistributedDataParallel, or of the default group.

    Without an initialised process group, or in a group of one, every method returns what it is given.

    Args:
        group: of processes; None is the default group.
        device: on which the network is trained; what is exchanged goes over it.

    Attributes:
        number: of processes.
        rank: of this one.
    """

    def __init__(self, group: Any = None, device: torch.device | str = "cpu") -> None:
        self.group = group
        self.device = torch.device(device)
        running = dist.is_available() and dist.is_initialized()
        self.number = dist.get_world_size(group) if running else 1
        self.rank = dist.get_rank(group) if running else 0

    @classmethod
    def of(cls, wrappers: Sequence[DistributedDataParallel], model: nn.Module) -> "Ranks":
        """Those that train a network in these wrappers, or in none."""
        groups = [one.process_group for one in wrappers]
        device = next((one.device for one in model.parameters()), torch.device("cpu"))
        return cls(groups[0] if groups else None, device)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Ranks":
        return self

    def __reduce__(self) -> tuple[type["Ranks"], tuple[None, str]]:
        return Ranks, (None, str(self.device))  # a group is of this process alone

    @property
    def _first(self) -> int:
        """What the default group calls rank 0 of this one."""
        return 0 if self.group is None else dist.get_global_rank(self.group, 0)

    @property
    def many(self) -> bool:
        """Whether there are others."""
        return self.number > 1

    def gather(self, what: str, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of every rank, as many of each.

        Raises:
            RanksError: where a rank does something else, or has ended.
        """
        if not self.many:
            return [list(numbers)]
        own = torch.tensor(list(numbers), dtype=torch.float64, device=self.device)
        rows = self._table(what, own)
        if len(own) > FEW:
            rows = torch.zeros(self.number, len(own), dtype=torch.float64, device=self.device)
            rows[self.rank] = own
            self._reduce(what, rows)
        return rows.tolist()

    def sum(self, what: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor summed over the ranks; those of one precision travel together."""
        if not self.many or not tensors:
            return list(tensors)
        flat = [tensor.detach().flatten().to(self.device) for tensor in tensors]
        sizes = [tensor.numel() for tensor in tensors]
        if sum(sizes) <= FEW:
            total = self._table(what, torch.cat([each.double() for each in flat])).sum(0)
            return [
                part.view(tensor.shape).to(tensor)
                for part, tensor in zip(total.split(sizes), tensors, strict=True)
            ]
        self._table(what, torch.zeros(sum(sizes), dtype=torch.float64, device=self.device))
        result = list(tensors)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            places = [place for place, tensor in enumerate(tensors) if tensor.dtype == dtype]
            fused = torch.cat([flat[place] for place in places])
            self._reduce(what, fused)
            for place, part in zip(places, fused.split([sizes[place] for place in places]), strict=True):
                result[place] = part.view(tensors[place].shape).to(tensors[place].device)
        return result

    def mean(self, what: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Each tensor averaged over the ranks."""
        return [tensor / self.number for tensor in self.sum(what, tensors)] if self.many else list(tensors)

    def any(self, what: str, flags: Sequence[bool]) -> list[bool]:
        """Which flags are set on any rank."""
        return [
            any(of_ranks) for of_ranks in zip(*self.gather(what, [*map(float, flags), 0.0]), strict=True)
        ][:-1]

    def all(self, what: str, flag: bool) -> bool:
        """Whether a flag is set on every rank."""
        return not self.any(what, [not flag])[0]

    def largest(self, what: str, number: int) -> int:
        """The largest of the ranks' numbers."""
        return int(max(row[0] for row in self.gather(what, [number])))

    def broadcast(self, inputs: Inputs) -> Inputs:
        """The example inputs of rank 0.

        Raises:
            ValueError: where those of another rank hold other kinds of tensors.
        """
        if not self.many:
            return inputs
        own = list(all_tensors(inputs))
        kinds = [float(digest(f"{tensor.dtype} {tensor.ndim}" for tensor in own))]
        first, *others = self.gather("compare the example inputs", kinds)
        if any(other != first for other in others):
            raise ValueError(
                "example_inputs expects inputs of the same kind on every rank; got other numbers of tensors, "
                f"precisions or axes: give each rank such a batch of its own data; here {described(own)}"
            )
        received: list[Tensor] = []
        for tensor in own:
            shapes = self.gather("compare the shapes of the example inputs", [*tensor.shape, 0.0])
            shape = [int(size) for size in shapes[0][:-1]]
            carried = torch.empty(shape, dtype=tensor.dtype, device=self.device)
            if self.rank == 0:
                carried.copy_(tensor)
            self.take_first("broadcast the example inputs", carried)
            received.append(carried.to(tensor.device))
        places = iter(received)
        return map_tensors(inputs, lambda tensor: next(places))

    def take_first(self, what: str, tensor: Tensor) -> None:
        """Give a tensor the values that it has on rank 0."""
        if self.many:
            carried = tensor.detach().to(self.device).contiguous()
            with _in_words(what):
                # bytes, for not every backend carries every type
                dist.broadcast(carried.view(-1).view(torch.uint8), self._first, group=self.group)
            if carried.data_ptr() != tensor.data_ptr():
                tensor.data.copy_(carried)

    def check_same(self, what: str, digests: Mapping[str, int], otherwise: str) -> None:
        """Check that every rank holds the same.

        Args:
            what: that is compared.
            digests: of each part, by its name.
            otherwise: what follows from a difference, and what to do.

        Raises:
            RanksError: where a rank holds something else; on all of them.
        """
        if not self.many:
            return
        rows = self.gather(f"compare {what}", [float(value) for value in digests.values()])
        for rank, row in enumerate(rows):
            different = [name for name, own, first in zip(digests, row, rows[0], strict=True) if own != first]
            if different:
                raise RanksError(
                    f"ranks disagree: {what} of rank {rank} is not that of rank 0 ({', '.join(different[:3])}"
                    f"{', ...' if len(different) > 3 else ''}): {otherwise}"
                )

    def _table(self, what: str, numbers: Tensor) -> Tensor:
        """The numbers of every rank, one row each, once all ranks came here for that, with as many."""
        few = len(numbers) <= FEW
        head = torch.tensor([digest([what]), len(numbers)], dtype=torch.float64, device=self.device)
        # always as many, so that backends carry them whatever ranks came for
        rows = torch.zeros(self.number, FEW + 2, dtype=torch.float64, device=self.device)
        rows[self.rank, :2] = head
        if few:
            rows[self.rank, 2 : 2 + len(numbers)] = numbers
        self._reduce(what, rows)
        if bool((rows[:, :2] != head).any()):
            raise RanksError(
                f"ranks disagree: this one, rank {self.rank}, came to {what} ({len(numbers)} numbers), and others to "
                "something else: every rank has to take as many steps of the optimizer, with the same configuration, "
                "and to call step(), compact() and Pruner(...) when the others do, not on one rank alone"
            )
        return rows[:, 2 : 2 + len(numbers)] if few else rows[:, :0]

    def _reduce(self, what: str, tensor: Tensor) -> None:
        with _in_words(what):
            dist.all_reduce(tensor, group=self.group)


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(". ")[0]
        raise RanksError(
            f"ranks could not {what}: one of them ended, or did not come here within the timeout of the process group; "
            "its own output says why. Every rank has to take as many steps, and to call step() and compact() when the "
            f"others do ({reason})"
        ) from error


def digest(words: Iterable[str]) -> int:
    """A number below `DIGEST` that stands for some words."""
    return int.from_bytes(hashlib.sha256("\n".join(words).encode()).digest()[:6], "big")


def digests_of(model: nn.Module) -> dict[str, int]:
    """A number for the bits of each parameter that ranks share."""
    apart = set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))
    named = {name: one.detach() for name, one in model.named_parameters() if name not in apart}
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
    sums = []
    for one in named.values():
        real = (torch.view_as_real(one) if one.is_complex() else one).contiguous()
        sums.append(real.view(integers[real.element_size()]).sum(dtype=torch.int64).cpu())
    return {name: int(total) % DIGEST for name, total in zip(named, sums, strict=True)}


def described(tensors: Sequence[Tensor]) -> str:
    """Shapes and precisions in words."""
    return ", ".join(
        f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in tensors
    )


def check_pruners(
    ranks: Ranks, config: PruningConfig, wiring: Wiring, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Check that every rank prunes the same network alike, and can.

    Raises:
        ValueError: where gradients are observed that only an optimizer meets after they were averaged.
        RanksError: where ranks differ.
    """
    if not ranks.many:
        return
    parts = {"configuration": [repr(config)], "wiring": [wiring.table(width=200)]}
    parts["optimizers"] = [type(one).__name__ for one in optimizers]
    digests = {name: digest(words) for name, words in parts.items()}
    ranks.check_same("the pruner", digests, "give every rank the same network, configuration and optimizers")
    if CRITERIA[config.criterion].observes_gradients and not optimizers:
        raise ValueError(
            f"criterion {config.criterion!r} observes gradients, which several processes average before the optimizer "
            "steps: give Pruner the optimizer"
        )


def check_networks(ranks: Ranks, model: nn.Module) -> None:
    """Check that ranks still train the same network.

    Raises:
        RanksError: where they do not, or the pruner was made before there were ranks.
    """
    check_whole(model)
    if ranks.many:
        ranks.check_same("the network", digests_of(model), DIFFERENT)
    elif Ranks().many and any(one.process_group.size() > 1 for one in wrappers_of(model)):
        raise RanksError(
            "this network is trained by several processes, and its Pruner was made before that was known: call "
            "torch.distributed.init_process_group first, then Pruner"
        )
