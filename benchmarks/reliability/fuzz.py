"""Readers and loaders on damaged and forged files: none may crash, hang, or take much more memory than the file has.

    python benchmarks/reliability/fuzz.py --count 100000

Each input is read in a process that may take no more memory, beyond what it has, than 10 times the bytes of the files
and 16 MiB (RLIMIT_DATA). Refused is what raises an error of the documented class that names a file; what raises another
error is a crash, as is a network that was loaded and does not run.
"""

import argparse
import collections
import contextlib
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import fuzz_kinds
import fuzz_runs
import fuzz_single
import fuzz_states
import numpy as np
from fuzz_kinds import Kind

KINDS = fuzz_kinds.KINDS | fuzz_runs.KINDS | fuzz_single.KINDS | fuzz_states.KINDS
HANG = 5.0
"""Seconds of processor time."""
DEADLY = 60
"""Seconds after which a process is ended, whatever it waits for."""
TIMES, ALWAYS = 10, 1 << 24
SHOWN = 5


@contextlib.contextmanager
def bounded(files: int) -> Iterator[None]:
    """Let the process take no more memory than what files of so many bytes may need."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    before = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = pages * resource.getpagesize() + TIMES * files + ALWAYS
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def outcome(kind: Kind, folder: Path, number: int, seed: int) -> tuple[str, str]:
    """What comes of one input, and what to show of it."""
    name = kind.spoil(folder, np.random.default_rng([seed, number]))
    size = sum((folder / each).stat().st_size for each in kind.files)
    started = time.process_time()
    try:
        with bounded(size), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", RuntimeWarning)
            kind.read(folder)
        came, shown = "read", ""
    except Exception as error:
        shown = f"{type(error).__name__}: {str(error)[:300]}"
        if isinstance(error, MemoryError) or "allocate" in str(error):
            came = "allocations"
        elif not isinstance(error, kind.refusals):
            came, shown = "crashes", "".join(traceback.format_exc()[-1500:])
        else:
            named = (str(folder), *(Path(each).name for each in kind.files), *kind.words)
            came = "refused" if any(each in str(error) for each in named) else "unnamed"
    finally:
        kind.mend(folder, name)
    if time.process_time() - started > HANG:
        came = "hangs"
    return came, shown


def work(name: str, first: int, last: int, seed: int) -> None:
    """Read inputs, and print what came of each."""
    kind = KINDS[name]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kind.write(folder)
        kind.read(folder)  # a good file is read, and what is loaded once is loaded
        for number in range(first, last):
            faulthandler.dump_traceback_later(DEADLY, exit=True)
            came, shown = outcome(kind, folder, number, seed)
            print(json.dumps([number, came, shown]), flush=True)
        faulthandler.cancel_dump_traceback_later()


def run(name: str, count: int, seed: int) -> collections.Counter[str]:
    """Read `count` inputs of a kind in processes of their own: one that dies is followed by another."""
    counts: collections.Counter[str] = collections.Counter()
    # memory that was freed is given back, so that the bound is one of what is taken
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }
    first = 0
    while first < count:
        command = [sys.executable, __file__, "--worker", name, str(first), str(count), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        for number, came, shown in lines:
            counts[came] += 1
            if came not in ("read", "refused") and counts[came] <= SHOWN:
                print(f"{name}, input {number}: {came}: {shown}", file=sys.stderr)
        if done.returncode == 0:
            break
        if not lines:
            raise SystemExit(f"{name}: nothing was read: {done.stderr[-2000:]}")
        first = lines[-1][0] + 2
        counts["hangs" if "Timeout" in done.stderr else "crashes"] += 1
        print(
            f"{name}, input {first - 1}: ended with {done.returncode}: {done.stderr[-2000:]}", file=sys.stderr
        )
    return counts


def main() -> None:
    """Read inputs of every kind, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="inputs of all kinds together")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), help="kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--worker", nargs=4, metavar=("KIND", "FIRST", "LAST", "SEED"), help=argparse.SUPPRESS
    )
    given = parser.parse_args()
    if given.worker:
        name, *numbers = given.worker
        return work(name, *map(int, numbers))
    columns = ("refused", "read", "crashes", "unnamed", "hangs", "allocations")
    print(f"| files | inputs | {' | '.join(columns)} | seconds |\n| --- |{' ---: |' * (len(columns) + 2)}")
    total: collections.Counter[str] = collections.Counter()
    for name in given.only:
        started = time.perf_counter()
        counts = run(name, -(-given.count // len(given.only)), given.seed)
        total += counts
        figures = [
            sum(counts.values()),
            *(counts[column] for column in columns),
            round(time.perf_counter() - started),
        ]
        print(f"| {name} | {' | '.join(map(str, figures))} |", flush=True)
    print(f"| all | {sum(total.values())} | {' | '.join(str(total[column]) for column in columns)} | |")
    bad = sum(total[column] for column in columns[2:])
    raise SystemExit(1 if bad else 0)


if __name__ == "__main__":
    main()
