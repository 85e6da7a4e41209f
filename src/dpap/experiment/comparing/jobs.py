"""A comparison in several processes at once: each takes runs that no other has, as separate calls of it do."""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from dpap.experiment.comparing.compare import Comparison, check_plan, compare
from dpap.experiment.comparing.grid import Planned
from dpap.experiment.comparing.results import write_results
from dpap.experiment.errors import UserError
from dpap.experiment.locks import only_writer
from dpap.experiment.progress import Lines, Quiet

GPUS = "CUDA_VISIBLE_DEVICES"


def compare_in_processes(
    runs: Sequence[Planned],
    folder: Path,
    jobs: int,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Comparison:
    """As `compare`, with so many runs at a time; GPUs and CPU threads are shared out among them.

    Args:
        runs: from `plan`.
        folder: that was given to `plan`.
        jobs: processes.
        overwrite: begin again with runs that are there.
        quiet: print nothing of the runs.
        command: written into each run.

    Raises:
        UserError: as `compare`; when a run is being written elsewhere and shall be overwritten.
    """
    check_plan(runs, overwrite)
    if overwrite:
        for run in runs:
            _clear(run)
    with _processes(runs, folder, jobs, quiet, command) as workers:
        for worker in workers:
            worker.join()
    failed: list[tuple[Planned, str]] = []
    for run in runs:
        if not run.files.summary.exists():
            files = run.files
            why = "its process ended, or it waits for one that failed; the same command goes on with it"
            if files.failure.exists():
                why = files.failure.read_text(encoding="utf-8").strip()
            failed.append((run, why))
    return Comparison(write_results(runs, folder), failed, [])


def _clear(run: Planned) -> None:
    if run.files.holds_a_run():
        run.files.check_free(overwrite=True)
        with only_writer(run.files.path):
            run.files.clear()


@contextmanager
def _processes(
    runs: Sequence[Planned], folder: Path, jobs: int, quiet: bool, command: str
) -> Iterator[list[BaseProcess]]:
    """So many processes that work on the runs; they end with this one."""
    start = multiprocessing.get_context("spawn")
    workers: list[BaseProcess] = []
    try:
        for number in range(min(jobs, len(runs))):
            given = (list(runs), folder, number, jobs, quiet, command)
            workers.append(start.Process(target=_work, args=given))
            workers[-1].start()
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(runs: list[Planned], folder: Path, number: int, jobs: int, quiet: bool, command: str) -> None:
    """What one process does."""
    end_with_parent()
    if torch.cuda.device_count() > 1:
        visible = os.environ.get(GPUS, ",".join(map(str, range(torch.cuda.device_count())))).split(",")
        os.environ[GPUS] = visible[number % len(visible)]
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    try:
        compare(runs, folder, progress=Quiet if quiet else partial(_Named, number + 1), command=command)
    except (UserError, KeyboardInterrupt) as error:
        raise SystemExit(str(error)) from None


def end_with_parent() -> None:
    """End this process at once where the one that started it is gone, even killed: it would hold its run and its GPU.

    What a run has written is whole at any moment, so nothing is tidied up.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


class _Named(Lines):
    """Lines that begin with the number of their process."""

    def __init__(self, number: int) -> None:
        self._number = number

    def message(self, text: str) -> None:
        super().message("\n".join(f"[{self._number}] {line}" for line in text.splitlines()))
