from pathlib import Path

import pytest

from dpap.experiment.errors import UserError
from dpap.experiment.results import EPOCHS, RESULTS, EpochResult, Line, Result, as_csv, read_csv
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
