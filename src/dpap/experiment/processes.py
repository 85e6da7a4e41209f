"""The processes that `torchrun` started for one run: each trains on its part of every batch, and the first writes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dpap.experiment.errors import UserError
from dpap.experiment.machine import choose_device
from dpap.experiment.progress import Quiet
from dpap.pruning.distributed import Ranks, RanksError

Result = TypeVar("Result")

TIMEOUT = 1800.0
"""Seconds that processes wait for each other, as torch has it."""

_held: list[Any] = []
"""The process group of the last run. A DistributedDataParallel that is the last to hold one waits, with Python's lock,
for gloo's threads, which need that lock for the tensors of their last sum: now and then both wait for ever."""


def launched() -> int:
    """How many processes `torchrun` started, this one included; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the first of them, which writes and prints."""
    return launched() == 1 or int(os.environ["RANK"]) == 0


def shown(progress: Quiet | None) -> Quiet:
    """The progress that is printed: the first process's."""
    return progress if progress and is_first() else Quiet()


@contextmanager
def processes(device: str, timeout: float = TIMEOUT) -> Iterator[tuple[Ranks, torch.device]]:
    """All processes of this run, and the device of this one: one GPU for each, or the CPU.

    Raises:
        UserError: when they cannot reach each other, or there are fewer GPUs than processes.
    """
    number = launched()
    if number == 1:
        yield Ranks(), choose_device(device)
        return
    if dist.is_initialized():
        raise UserError(
            "a run makes its process group itself: call train() or resume() before init_process_group, or start "
            "`dpap train` with torchrun"
        )
    if ":" in device:
        raise UserError(
            f"training.device is {device!r}, one GPU for {number} processes; use auto, cuda or cpu"
        )
    own = choose_device(device)
    if own.type == "cuda":
        own = choose_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        torch.cuda.set_device(own)
    backend = "nccl" if own.type == "cuda" else "gloo"
    _held.clear()
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {number} processes of this run do not reach each other: {error}") from error
    _held.append(dist.group.WORLD)
    try:
        yield Ranks(device=own), own
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def part(ranks: Ranks) -> tuple[int, int]:
    """Which part of every batch is this process's, and of how many."""
    return ranks.rank, ranks.number


def everywhere(ranks: Ranks, what: str, call: Callable[[], Result], *, first_alone: bool = False) -> Result:
    """Call something in every process, and go on where all of them can.

    Args:
        ranks: of this run.
        what: it does, in words.
        call: what to do.
        first_alone: let the first process do it before the others: what it leaves on the disk is there for them.

    Raises:
        UserError: when it did so in any of them.
    """
    if not ranks.many:
        return call()
    results: list[Result] = []
    for turn in (ranks.rank == 0, ranks.rank != 0) if first_alone else (True,):
        failure: UserError | None = None
        try:
            if turn:
                results.append(call())
        except UserError as error:
            failure = error
        if not ranks.all(what, failure is None):
            raise failure or UserError(
                f"another process of this run could not {what}; its own message says why"
            )
    return results[0]


def leave(ranks: Ranks) -> None:
    """End what the processes do together; afterwards each is alone."""
    if ranks.many:
        ranks.all("end the run", True)
        dist.destroy_process_group()


@contextmanager
def lost(ranks: Ranks, advice: str) -> Iterator[None]:
    """Turns what is raised where another process is gone into a UserError that says so, and `advice`."""
    try:
        yield
    except RuntimeError as error:
        if not (ranks.many and _between_processes(error)):
            raise
        why = str(error)
        if not isinstance(error, RanksError):
            why = f"another process ended, or hangs; its own output says why ({why.partition('. ')[0]})"
        raise UserError(f"process {ranks.rank} of {ranks.number} cannot go on: {why}. {advice}") from error


def _between_processes(error: RuntimeError) -> bool:
    """Whether an error is of the exchange between processes; DistributedDataParallel's are plain RuntimeErrors."""
    text = str(error)
    return isinstance(error, RanksError | dist.DistError) or any(
        word in text
        for word in ("gloo", "NCCL", "Connection closed", "Connection reset", "Timed out waiting")
    )
