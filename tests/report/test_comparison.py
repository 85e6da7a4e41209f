from pathlib import Path

import pytest

from dpap.experiment.comparing.results import EpochResult, Result, as_csv
from dpap.experiment.errors import UserError
from dpap.report import write_comparison
from support.comparison import made

RESULTS = [
    made(method, seed, accuracy + 0.004 * seed, target, converged=2 if accuracy > 0.9 else None)
    for seed in (0, 1, 2)
    for method, accuracy, target in (
        ("dense", 0.91, None),
        ("dpap", 0.92, 0.5),
        ("no_trace", 0.88, 0.5),
        ("dpap", 0.9, 0.8),
        ("no_trace", 0.7, 0.8),
    )
]
EPOCHS = [
    EpochResult(
        each.recipe, each.method, each.target, each.target_of, each.seed, epoch, each.accuracy - 0.3 / epoch, None,
        each.sparsity * epoch / 3, 0.0, int(900 * (1 - each.sparsity * epoch / 3)), 1.0,
    )
    for each in RESULTS
    for epoch in (1, 2, 3)
]  # fmt: skip


def write(folder: Path, results: list[Result], epochs: list[EpochResult]) -> Path:
    (folder / "results.csv").write_text(as_csv(Result, results))
    (folder / "epochs.csv").write_text(as_csv(EpochResult, epochs))
    return folder


def test_the_page_holds_the_table_and_every_figure(tmp_path: Path) -> None:
    page = write_comparison(write(tmp_path, RESULTS, EPOCHS))
    text = page.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    names = [
        "size", "accuracy", "pruning", "convergence", "weights", "differences-0.5", "differences-0.8",
    ]  # fmt: skip
    assert {file.name for file in page.parent.glob("*.png")} == {f"digits-{name}.png" for name in names}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in page.parent.glob("*.png"))
    assert text.count("<svg") == len(names)
    assert '<th scope="row">dpap *</th>' in text
    assert "92.40 ± 0.40" in text
    assert "Protocol validation" in text
    assert "http" not in text.replace("http://www.w3.org", "")  # nothing is fetched


def test_one_dense_run_is_a_page_too(tmp_path: Path) -> None:
    page = write_comparison(write(tmp_path, RESULTS[:1], EPOCHS[:3]))
    assert [file.name for file in page.parent.glob("*.png")] == ["digits-accuracy.png"]


def test_names_are_text_and_not_html(tmp_path: Path) -> None:
    results = [made("dense", 0, 0.5, recipe="<b>", network="<i>")]
    text = write_comparison(write(tmp_path, results, [])).read_text(encoding="utf-8")
    assert "<b>" not in text and "<i>" not in text


def test_tables_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.csv"):
        write_comparison(tmp_path)
