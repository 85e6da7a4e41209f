from pathlib import Path
from typing import Any

import pytest

from dpap.experiment.comparing.grid import Row, plan
from dpap.experiment.comparing.results import (
    CHECKSUMS,
    EPOCHS,
    RESULTS,
    EpochResult,
    Line,
    Result,
    as_csv,
    collect,
    read_csv,
    read_results,
    write_results,
)
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.errors import UserError
from dpap.experiment.run_folder import OF_A_SUMMARY
from dpap.experiment.sealed import append, write_json
from support.comparison import made

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
FOLDERS = sorted(path.parent for path in EVIDENCE.glob(f"*/{RESULTS}"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = [made("dense", 0, 1 / 3), made("dpap", 1, 0.1, 0.6, converged=7, seconds_to_converge=1e-3)]
    (tmp_path / "results.csv").write_text(as_csv(Result, results))
    assert read_csv(Result, tmp_path / "results.csv") == results
    epochs = [EpochResult("a, b", "dpap", None, "weights", 0, 1, 0.5, None, 0.1, 0.0, 12, 0.25)]
    (tmp_path / "epochs.csv").write_text(as_csv(EpochResult, epochs))
    assert read_csv(EpochResult, tmp_path / "epochs.csv") == epochs


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
@pytest.mark.parametrize(("kind", "name"), [(Result, RESULTS), (EpochResult, EPOCHS)])
def test_published_tables_are_read_and_written_to_the_same_bytes(
    folder: Path, kind: type[Line], name: str
) -> None:
    lines = read_csv(kind, folder / name)
    assert lines and as_csv(kind, lines).encode() == (folder / name).read_bytes()


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_what_is_no_such_table_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(text or as_csv(Result, [made("dpap", 0, 0.5)]).replace("0.5", "half"))
    with pytest.raises(UserError, match=r"results\.csv is not the table"):
        read_csv(Result, path)
    with pytest.raises(UserError, match="nowhere"):
        read_csv(Result, tmp_path / "nowhere.csv")


def test_tables_that_were_damaged_are_named(tmp_path: Path) -> None:
    write_results([], tmp_path)
    assert read_results(tmp_path) == ([], [])
    for name in (RESULTS, EPOCHS, CHECKSUMS):
        before = (tmp_path / name).read_bytes()
        for damaged in (before[:-3], before.replace(b"d", b"e", 1), b"\xff" + before):
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(UserError, match=CHECKSUMS):
                read_results(tmp_path)
        (tmp_path / name).write_bytes(before)
    (tmp_path / CHECKSUMS).unlink()  # as of dpap 0.1.0
    assert read_results(tmp_path) == ([], [])


SUMMARY = dict.fromkeys(OF_A_SUMMARY, 1)


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ({}, "summary.json: expected the summary of a run, got one without epochs, final_epoch"),
        ({**SUMMARY, "epochs": 3}, "metrics.jsonl has 1 of 3 epochs"),
        (SUMMARY, "'best_test_accuracy' is missing"),
    ],
)
def test_records_of_a_finished_run_that_do_not_fit_are_named(
    summary: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = plan([Row("digits", ExperimentConfig(), ["dense"], [], [0])], tmp_path)[0]
    run.files.make()
    write_json(run.files.summary, summary)
    append(run.files.metrics, {"epoch": 1, "test_accuracy": 0.5, "seconds": 1.0})
    with pytest.raises(UserError, match=rf"{message}.*dpap train --resume {run.files.path}"):
        collect([run], tmp_path)
