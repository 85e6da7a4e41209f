"""`dpap evaluate`."""

import json
from argparse import SUPPRESS
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.cli.shared import MADE, add_imports_flag, check_output, make_room, may_import
from dpap.data import DataConfig
from dpap.experiment.errors import UserError
from dpap.experiment.using.candidates import RUNTIMES
from dpap.experiment.using.evaluation import Measurements, evaluate_run
from dpap.experiment.using.evaluation_table import evaluation_text
from dpap.files import write_text

OF_TRAINING = {"batch_size", "augment", "randaugment", "erase"}
"""Fields of data that no test sample depends on."""
FIELDS = {each.name for each in fields(DataConfig)} - OF_TRAINING


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    default = Measurements()
    parser.add_argument(
        "run", help="folder of a finished run, of which config.yaml and the model file are read"
    )
    parser.add_class_arguments(DataConfig, "data", skip=OF_TRAINING)
    # only what is given replaces what the run has
    parser.set_defaults({f"data.{name}": SUPPRESS for name in FIELDS})
    parser.add_argument(
        "--batches",
        type=list[int],
        default=list(default.batches),
        help="numbers of samples at a time, to be timed",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=default.rounds,
        help="every candidate runs once in each; 0 measures no time",
    )
    parser.add_argument("--runtimes", type=list[str], default=list(RUNTIMES), help="which of these")
    parser.add_argument(
        "--calibration",
        type=int,
        default=default.calibration,
        help="training samples on which the ranges for 8-bit integers are measured",
    )
    parser.add_argument(
        "--threads", type=int, help="of the processor, for all alike; as the run had if not given"
    )
    parser.add_argument(
        "--device", help="of PyTorch: cpu, cuda or cuda:N; the run's, or what there is, if not given"
    )
    parser.add_argument("--json", metavar="FILE", help=f"all numbers, those of each class too; {MADE}")
    add_imports_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Measure, print the tables and write the file."""
    unknown = set(given.runtimes) - set(RUNTIMES)
    if unknown or not given.runtimes:
        raise UserError(f"--runtimes are of {', '.join(RUNTIMES)}; got {given.runtimes}")
    if given.json is not None:
        check_output("--json", Path(given.json))
    changes = {name: given.data[name] for name in FIELDS if "data" in given and name in given.data}
    record = evaluate_run(
        Path(given.run),
        changes,
        Measurements(given.batches, given.rounds, given.threads, given.runtimes, given.calibration),
        allow_imports=may_import(changes.get("name", ""), given, command),
        device=given.device,
    )
    print(evaluation_text(record))
    if given.json is not None:
        content = json.dumps({**record, "command": command}, indent=2, allow_nan=False)
        write_text(make_room(Path(given.json)), content + "\n")
        print(f"\nall numbers: {given.json}")
