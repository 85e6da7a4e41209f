"""Everything that needs a GPU, the most telling first, as far as the time goes; the next run goes on.

    python benchmarks/gpu/run.py --minutes 4

Each result is one JSON line of one file, written as soon as it is there. What this card has in the file is skipped.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "src")]

import evidence
import fast
import right
import throughput
import torch
from jobs import Job, Setting, work
from results import Results, card_of

PARTS = {
    "right": right.JOBS,
    "fast": fast.JOBS,
    "evidence": evidence.JOBS,
    "throughput": throughput.JOBS,
}
"""In the order in which they run."""


def main(words: list[str] | None = None) -> int:
    """Run what is left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4.0, help="stop before so many have passed")
    parser.add_argument("--out", default=str(HERE / "results.jsonl"), help="file of the results")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", help="parts, or jobs whose name contains it; all by default"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the jobs, their seconds, and which are done"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny sizes, to try the program without a GPU"
    )
    parser.add_argument("--rounds", type=int, default=20, help="measured runs of each candidate")
    parser.add_argument("--data", type=Path, help="folder of the data sets; $DPAP_DATA by default")
    parser.add_argument(
        "--runs", type=Path, default=HERE / "runs", help="folder of the runs, which go on from it"
    )
    arguments = parser.parse_args(words)
    deadline = time.monotonic() + 60 * arguments.minutes
    device = torch.device(arguments.device)
    results = Results(Path(arguments.out), card_of(device))
    chosen = select([job for jobs in PARTS.values() for job in jobs], arguments.only)
    if arguments.list:
        done = results.done()
        for job in chosen:
            state = "done" if (job.part, job.name) in done else f"{job.seconds:.0f} s"
            print(f"{state:>6}  {job.part}: {job.name}")
        return 0
    torch.backends.cudnn.benchmark = True  # for all candidates alike
    rounds = 2 if arguments.rehearse else arguments.rounds
    setting = Setting(device, arguments.rehearse, rounds, arguments.data, arguments.runs.resolve())
    left = work(chosen, results, setting, deadline)
    if left:
        again = ["python", "benchmarks/gpu/run.py", *(sys.argv[1:] if words is None else words)]
        print(
            f"\n{len(left)} left, about {sum(job.seconds for job in left):.0f} s; go on with\n  {shlex.join(again)}"
        )
        for job in left:
            print(f"  {job.part}: {job.name} ({job.seconds:.0f} s)")
    return 0


def select(jobs: list[Job], only: list[str] | None) -> list[Job]:
    """The jobs of these parts, or of these words in their names."""
    return [job for job in jobs if only is None or any(w == job.part or w in job.name for w in only)]


if __name__ == "__main__":
    sys.exit(main())
