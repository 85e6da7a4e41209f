"""Runs that are killed (SIGKILL) and go on: do they end with the bits of a run that was not?

    python benchmarks/reliability/kills.py --kills 100

Every trial is a run in a process of its own that is killed once: at a random time, or at a chosen moment, an occurrence
drawn of all that an undisturbed run has of it. Chosen moments are within the writing of each file (some bytes of it are
written), before it is flushed, before and after it takes its name, and while units are removed. Then the run goes on in
another process, or is begun again where it had not begun, and every file is compared with those of the undisturbed run.
Of `compare`, two processes share the runs and one of them is killed. Results go to a file of lines; a second call goes
on with it. Needs fork, hence Linux or macOS.
"""

import argparse
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from trials import HERE, Heard, Trials, difference, machine, small_run

import dpap.surgery.slicing as slicing
from dpap.experiment.comparing.compare import compare
from dpap.experiment.comparing.grid import Planned, Row, plan
from dpap.experiment.comparing.results import RESULTS, Result, read_csv
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.train import resume, train

RUNS: dict[str, dict[str, Any]] = {
    "units, compacted, kept by validation": {"protocol": "validation"},
    "timesteps": {"spiking": True, "timestep_target": 0.3},
    "before the first death": {"start_epoch": 3, "end_epoch": 4},
    "dense": {"prune": False},
}
COMPARISON = "compare, two processes"
Event = tuple[str, str]  # file, what happens to it
Target = tuple[Event, int]  # its occurrence, from 1


class Trap:
    """Counts what this process does to its files, and kills it at one occurrence of one event."""

    def __init__(self, target: Target | None, rng: random.Random) -> None:
        self.target, self.rng = target, rng
        self.seen: Counter[Event] = Counter()

    def set(self) -> None:
        """From now on."""
        real_open, fsync, replace = io.open, os.fsync, os.replace
        slice_layer = slicing._Slicer.slice_layer

        def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            handle = real_open(file, mode, *rest, **named)
            return Written(handle, _name(file), self) if set(mode) & set("wxa") else handle

        def synced(descriptor: int) -> None:
            self.happens(_name(Path(f"/proc/self/fd/{descriptor}").readlink()), "before the flush")
            fsync(descriptor)

        def replaced(source: Any, target: Any) -> None:
            self.happens(Path(target).name, "before the rename")
            replace(source, target)
            self.happens(Path(target).name, "after the rename")

        def sliced(*given: Any) -> Any:
            self.happens("network", "while units are removed")
            return slice_layer(*given)

        io.open, os.replace = opened, replaced
        if Path("/proc/self/fd").exists():
            os.fsync = synced
        slicing._Slicer.slice_layer = sliced  # type: ignore[method-assign]

    def happens(self, name: str, what: str, before: Callable[[], object] = lambda: None) -> None:
        """Count an event; `before` is done before this process dies of it."""
        self.seen[name, what] += 1
        if self.target == ((name, what), self.seen[name, what]):
            before()
            os.kill(os.getpid(), signal.SIGKILL)


class Written:
    """A file that is written; of the write at which the process dies only a part arrives."""

    def __init__(self, handle: Any, name: str, trap: Trap) -> None:
        self.handle, self.name, self.trap = handle, name, trap

    def write(self, data: Any) -> Any:
        def part() -> None:
            self.handle.write(memoryview(data)[: self.trap.rng.randrange(len(data) or 1)])
            self.handle.flush()

        self.trap.happens(self.name, "while it is written", part)
        return self.handle.write(data)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)


def _name(path: Any) -> str:
    """The name that a file has or will have: .NAME.PID-TOKEN.part is NAME."""
    name = Path(path).name if not isinstance(path, int) else str(path)
    return name[1:].rsplit(".", 2)[0] if name.endswith(".part") else name


def start(work: Callable[[], object], said: Path) -> int:
    """Do `work` in another process, whose number is returned; an error is written to `said`."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            said.write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)
    return number


def ended(number: int) -> int:
    """Wait for a process; its exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def begin_or_go_on(config: ExperimentConfig) -> None:
    """What a user does after a death."""
    if RunFolder(config.folder).holds_a_run():
        resume(config.folder)
    else:
        train(config)


def killed_run(
    name: str,
    reference: Path,
    events: Counter[Event],
    seconds: float,
    work: Path,
    rng: random.Random,
    timed: bool,
) -> dict[str, Any]:
    """One trial of a run."""
    config = small_run(work / "run", **RUNS[name])
    target: Target | None = None
    if not timed:
        event = rng.choice(sorted(events))
        target = (event, rng.randint(1, events[event]))

    def undisturbed_until_then() -> None:
        trap = Trap(target, rng)
        trap.set()
        train(config)

    child = start(undisturbed_until_then, work / "said")
    if timed:
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    code = ended(child)
    moment = "at a random time" if target is None else f"{target[0][0]}: {target[0][1]}"
    result = {"run": name, "moment": moment, "killed": code == -signal.SIGKILL}
    if ended(start(lambda: begin_or_go_on(config), work / "said")) != 0:
        return result | {"outcome": "lost", "why": (work / "said").read_text()}
    left = [each.name for each in config.folder.iterdir() if each.name.endswith(".part")]
    why = difference(config.folder, reference) or (f"left behind: {', '.join(left)}" if left else "")
    return result | {"outcome": "different" if why else "same bits", "why": why}


def killed_comparison(reference: Path, seconds: float, work: Path, rng: random.Random) -> dict[str, Any]:
    """One trial of two processes that share a comparison."""
    folder = work / "all"
    first, second = (start(lambda: compare(comparison(folder), folder), work / f"said{n}") for n in range(2))
    time.sleep(rng.uniform(0, seconds))
    os.kill(rng.choice([first, second]), signal.SIGKILL)
    codes = [ended(first), ended(second)]
    result = {"run": COMPARISON, "moment": "at a random time", "killed": -signal.SIGKILL in codes}
    if ended(start(lambda: finish_comparison(folder), work / "said")) != 0:
        return result | {"outcome": "lost", "why": (work / "said").read_text()}
    for run in comparison(folder):
        if why := difference(run.config.folder, reference / run.config.folder.name):
            return result | {"outcome": "different", "why": f"{run}: {why}"}
    ours, theirs = (timeless_table(each / RESULTS) for each in (folder, reference))
    return result | {"outcome": "same bits" if ours == theirs else "different", "why": ""}


def comparison(folder: Path) -> list[Planned]:
    """A dense run, its pruned twin, and one of the paper's rule."""
    return plan([Row("small", small_run(folder), ["dpap", "paper"], [0.5], [0])], folder)


def finish_comparison(folder: Path) -> None:
    """The same command once more: it finishes what is left."""
    done = compare(comparison(folder), folder)
    if done.failed or done.elsewhere:
        raise UserError(f"not finished: {done.failed} {done.elsewhere}")


def timeless_table(path: Path) -> list[dict[str, Any]]:
    """Lines of results.csv without seconds."""
    names = [each.name for each in fields(Result) if "seconds" not in each.name]
    return [{name: getattr(line, name) for name in names} for line in read_csv(Result, path)]


def main(words: list[str] | None = None) -> int:
    """Kill what was not killed yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100, help="until so many were killed before they ended")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--out", default=str(HERE / "results" / "kills.jsonl"), help="file of the results")
    given = parser.parse_args(words)
    trials = Trials(Path(given.out))
    kinds = [*RUNS, COMPARISON]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        train(small_run(scratch / "warm"))  # what is imported late is there in every process
        undisturbed: dict[str, tuple[Counter[Event], float]] = {}
        while sum(each["killed"] for each in trials.done) < given.kills:
            number = len(trials.done)
            rng = random.Random(f"{given.seed} {number}")
            kind = kinds[number % len(kinds)]
            if kind not in undisturbed:
                undisturbed[kind] = reference_of(kind, scratch / kind)
            events, seconds = undisturbed[kind]
            work = scratch / f"trial{number}"
            work.mkdir()
            if kind == COMPARISON:
                result = killed_comparison(scratch / kind, seconds, work, rng)
            else:
                timed = number // len(kinds) % 3 == 0
                result = killed_run(kind, scratch / kind, events, seconds, work, rng, timed)
            trials.add({"trial": number, "seed": given.seed, **result})
            print(number, *(f"{value}" for value in result.values()), sep="  ", flush=True)
            shutil.rmtree(work)
    outcomes = ("same bits", "different", "lost")
    print(trials.table("run", outcomes))
    print(trials.table("moment", outcomes))
    print(
        f"{sum(each['killed'] for each in trials.done)} of {len(trials.done)} were killed before they ended"
    )
    print(machine())
    return 0 if all(each["outcome"] == "same bits" for each in trials.done) else 1


def reference_of(kind: str, folder: Path) -> tuple[Counter[Event], float]:
    """Run without a death; the events of a run, and how many seconds it took."""
    said = folder.with_name(f"{folder.name} said")
    began = time.perf_counter()
    if kind == COMPARISON:
        assert ended(start(lambda: finish_comparison(folder), said)) == 0, said.read_text()
        return Counter(), time.perf_counter() - began
    seen = folder.with_name(f"{folder.name} seen")

    def run() -> None:
        trap = Trap(None, random.Random(0))
        trap.set()
        train(small_run(folder, **RUNS[kind]), progress=Heard())
        happened = [
            f"{file}\t{what}\t{count}" for (file, what), count in trap.seen.items() if file in WATCHED
        ]
        seen.write_text("\n".join(happened))

    assert ended(start(run, said)) == 0, said.read_text()
    seconds = time.perf_counter() - began
    rows = [line.split("\t") for line in seen.read_text().splitlines()]
    return Counter({(file, what): int(count) for file, what, count in rows}), seconds


WATCHED = {
    "network", "run.json", "config.yaml", "metrics.jsonl", "survival.jsonl", "checkpoint.pt", "checkpoint-previous.pt",
    "kept.pt", "model.safetensors", "summary.json",
}  # fmt: skip
"""Whose events are moments to die at."""

if __name__ == "__main__":
    sys.exit(main())
