"""`dpap predict`."""

import csv
import io
import json
import os
import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.cli.shared import MADE, add_imports_flag, check_output, make_room
from dpap.experiment.errors import UserError
from dpap.experiment.sealed import Record
from dpap.experiment.tables import text_table
from dpap.experiment.using.prediction import PROBABILITY, RATE, predict_run
from dpap.files import write_bytes
from dpap.surgery.fitting import escaped


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument(
        "run", help="folder of a finished run, of which config.yaml and the model file are read"
    )
    parser.add_argument(
        "files",
        nargs="+",
        help="pictures (.png, .jpg), arrays (.npy), recordings (.bin, .aedat), or folders of these",
    )
    parser.add_argument(
        "--resize", action="store_true", help="bring pictures to the size that the network takes"
    )
    parser.add_argument(
        "--batch", type=int, help="files at a time; as many as the run evaluated if not given"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N; the run's, or what there is, if not given")
    parser.add_argument(
        "--json", metavar="FILE", help=f"all that is printed, and every class's probability; {MADE}"
    )
    parser.add_argument("--csv", metavar="FILE", help=f"what is printed; {MADE}")
    add_imports_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Predict, print the table and write the files; an error at the end where a file could not be read."""
    for flag, file in (("--json", given.json), ("--csv", given.csv)):
        if file is not None:
            check_output(flag, Path(file))
    record = predict_run(
        Path(given.run),
        [Path(each) for each in given.files],
        resize=given.resize,
        batch=given.batch,
        allow_imports=given.allow_imports,
        device=given.device,
    )
    head, rows = _table(record)
    if rows:
        print(text_table(head, [[escaped(each) for each in row] for row in rows]))
    notes = [f"{count:,} of {len(rows):,}: {note}" for note, count in record["notes"].items()]
    if count := record["passed_over"]:
        other = "file of another kind was" if count == 1 else "files of other kinds were"
        notes.append(f"{count:,} {other} passed over")
    if notes:
        print("\n".join(["", *(f"note: {note}" for note in notes)]))
    if given.json is not None:
        write_bytes(
            make_room(Path(given.json)),
            json.dumps(record | {"command": command}, indent=2, allow_nan=False).encode() + b"\n",
        )
    if given.csv is not None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([head, *rows])
        # names of files are bytes, which need not be text
        write_bytes(make_room(Path(given.csv)), os.fsencode(text.getvalue()))
    for each in record["failed"]:
        print(escaped(f"dpap: {each['file']}: {each['why']}"), file=sys.stderr)
    if record["failed"]:
        files = record["files"]
        done = files - len(record["failed"])
        raise UserError(f"{done:,} of {files:,} {'file was' if files == 1 else 'files were'} predicted")


def _table(record: Record) -> tuple[list[str], list[list[str]]]:
    """Head and rows; the classes have a column of names where they are not called by their numbers."""
    predictions = record["predictions"]
    score = RATE if predictions and RATE in predictions[0] else PROBABILITY
    named = record["class_names"] != [str(number) for number in range(len(record["class_names"]))]
    head = ["file", "class", *(["name"] if named else []), score]
    rows = [
        [
            each["file"],
            str(each["class"]),
            *([each["name"]] if named else []),
            f"{each[score]:.4f}",
        ]
        for each in predictions
    ]
    return head, rows
