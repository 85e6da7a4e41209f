"""The zoo's networks one after another, each in a process of its own, what came of each written at once."""

import importlib
import importlib.metadata
import json
import multiprocessing
import resource
import sys
import traceback
from collections.abc import Sequence
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

import torch

import dpap
from dpap.experiment.machine import describe_machine
from zoo.measure import Maker, Row, measure
from zoo.table import write_table

LIBRARIES = (
    "plain", "recurrent", "generative", "spikingjelly_models", "snntorch_models", "norse_models", "sinabs_models",
    "transformers_models", "geometric", "segmentation", "torchvision_models", "timm_models",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results.jsonl"


def explore(
    only: Sequence[str] | None, again: Sequence[str] | None, limit: int, *, list_only: bool = False
) -> None:
    """Measure all networks that have no row yet, and write the table.

    Args:
        only: names or libraries with any of these in them; all if None.
        again: verdicts of which rows are measured anew; all where it is empty.
        limit: seconds of processor time that one network may take, and five times as many in all.
        list_only: only print the names.
    """
    torch.set_num_threads(1)  # processes are forked
    rows = read()
    modules = {library: importlib.import_module(f"zoo.{library}") for library in LIBRARIES}
    for library, module in modules.items():
        names = [
            name for name in module.NETWORKS if not only or any(part in f"{library} {name}" for part in only)
        ]
        if list_only:
            print("\n".join(names))
            continue
        names = [name for name in names if _is_due(rows.get(name), again)]
        if not names:
            continue
        missing = missing_package(module)
        for name in names:
            row = {"verdict": "not installed", "reason": missing}
            if not missing:
                row = in_a_fork(module.NETWORKS[name], limit)
            append({"network": name, "library": module.PACKAGE, **row, **state_of(module.PACKAGE)})
            print(f"{name}: {row['verdict']} {row['reason'][:200]}", flush=True)
    if not list_only:
        order = [name for module in modules.values() for name in module.NETWORKS]
        rows = read()
        print(write_table([rows[name] for name in order if name in rows]))


def _is_due(row: Row | None, again: Sequence[str] | None) -> bool:
    return row is None or (again is not None and (not again or row["verdict"] in again))


def missing_package(module: ModuleType) -> str:
    """Why the package of a file cannot be used, or ""."""
    try:
        module.load()
    except Exception as error:  # whatever a package does when it does not fit
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def in_a_fork(maker: Maker, limit: int) -> Row:
    """The row of one network, or how it failed; what it does to memory, modes and seeds ends with its process."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(maker, sender, limit))
    process.start()
    sender.close()
    row: Row = {"verdict": "unclear", "reason": f"took longer than {limit} s"}
    try:
        if receiver.poll(5 * limit):
            row = receiver.recv()
    except EOFError:  # killed: by the limit of processor time, or for memory
        process.join()
        row["reason"] = f"took longer than {limit} s, or was killed (exit code {process.exitcode})"
    finally:
        process.kill()
        process.join()
    return row


def _child(maker: Maker, sender: Connection, limit: int) -> None:
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + limit, used + limit + 5))
    try:
        row = measure(maker)
    except BaseException as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "dpap" in frame.filename]
        where = f" ({Path(own[-1].filename).name}, {own[-1].name})" if own else " (the network itself)"
        row = {"verdict": "unclear", "reason": f"{type(error).__name__}: {str(error)[:300]}{where}"}
    sender.send(row)


def state_of(package: str) -> Row:
    """Machine, versions and the state of the code under which a row was measured."""
    machine = describe_machine(torch.device("cpu"))
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = None
    source = Path(dpap.__file__).parent
    digest = sha256(b"".join(path.read_bytes() for path in sorted(source.rglob("*.py")))).hexdigest()[:12]
    return {"version": version, "torch": torch.__version__, "cpu": machine["cpu"], "code": digest}


def read() -> dict[str, Row]:
    """The latest row of each network."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    return {row["network"]: row for row in rows}


def append(row: Row) -> None:
    """Write a row down at once, in place of an older one of the same network."""
    rows = read()
    rows.pop(row["network"], None)
    rows[row["network"]] = row
    passing = RESULTS.with_suffix(".new")
    passing.write_text("".join(f"{json.dumps(each)}\n" for each in rows.values()))
    passing.replace(RESULTS)


if __name__ == "__main__":
    sys.exit("run it by: python benchmarks/anatomy.py --zoo")
