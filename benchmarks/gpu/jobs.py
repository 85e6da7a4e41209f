"""Jobs, and the loop that runs them while there is time."""

import gc
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from results import Results


@dataclass(frozen=True)
class Setting:
    """How jobs run.

    Attributes:
        device: on which.
        rehearse: in sizes that a CPU can run in seconds.
        rounds: measured runs of each candidate.
        data: the folder of the data sets; None takes the environment variable DPAP_DATA.
        runs: the folder of the runs, from which those that were stopped go on.
    """

    device: torch.device
    rehearse: bool = False
    rounds: int = 20
    data: Path | None = None
    runs: Path = Path("runs")


@dataclass(frozen=True)
class Job:
    """One result.

    Attributes:
        part: of the program.
        name: unique within the part.
        seconds: that it took on an H100, or is thought to take.
        run: returns what to write down; with "error" in it, the job is not done.
        resumable: whether it is begun also where its time is not left, for it goes on the next time.
    """

    part: str
    name: str
    seconds: float
    run: Callable[[Setting], dict[str, Any]]
    resumable: bool = False


LEAST = 60.0
"""Seconds for which a resumable job is begun."""


def work(jobs: Sequence[Job], results: Results, setting: Setting, deadline: float) -> list[Job]:
    """Run what has no result yet and fits before `deadline`, in `time.monotonic()`; returns what is left.

    A job that fails, or is not ready at the deadline, is written down with its error and runs again the next time.
    After an error of the device, which no later job of this process survives, it stops.
    """
    done = results.done()
    left = []
    broken = False
    for job in jobs:
        if (job.part, job.name) in done:
            continue
        start = time.monotonic()
        needed = min(job.seconds, LEAST) if job.resumable else job.seconds
        if broken or start + needed > deadline:
            left.append(job)
            continue
        try:
            with interrupted(deadline - start):
                outcome = job.run(setting)
        except Exception as error:
            outcome = {
                "error": f"{type(error).__name__}: {error}"[:1000],
                "where": traceback.format_exc()[-1500:],
            }
        if "error" in outcome:
            left.append(job)
        seconds = time.monotonic() - start
        results.add(job.part, job.name, seconds, outcome)
        print(f"{seconds:6.1f} s  {job.part}: {job.name}  {outcome.get('error', '')}", flush=True)
        broken = not free(setting.device)
    return left


class OutOfTime(Exception):
    """The time was over before the job was."""


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in what takes longer."""

    def stop(number: int, frame: Any) -> None:
        raise OutOfTime(f"not ready after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def free(device: torch.device) -> bool:
    """Give back what the last job held; returns whether the device still answers."""
    gc.collect()
    if device.type == "cuda":
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
    return True
