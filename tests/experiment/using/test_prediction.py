"""`dpap predict`: classes of files, from a run's configuration and model file alone."""

import csv
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dpap
from dpap.cli import main
from dpap.data.digits import DIGITS
from dpap.data.registry import DATASETS
from dpap.experiment.config import load_config
from dpap.experiment.errors import UserError
from dpap.experiment.train import train
from dpap.experiment.using.kept import read_kept
from dpap.experiment.using.prediction import predict_run

OWN = """
from pathlib import Path
import torch
(Path(__file__).parent / "imported").touch()

class Own:
    classes = ["k", "l", "m", "n", "o", "p", "q", "r", "s", "t"]
    targets = list(range(10))
    def __init__(self, train): pass
    def __len__(self): return 10
    def __getitem__(self, i): return torch.rand(1, 8, 8), i
"""


def written(folder: Path, run: Path, count: int = 30) -> list[Path]:
    """Test images as PNG files."""
    folder.mkdir()
    test: Any = read_kept(run).data.test
    paths = []
    for number, image in enumerate(test.data[test.index[:count]].double() * 255 / 16):
        paths.append(folder / f"{number:03}.png")
        Image.fromarray(image[0].round().byte().numpy()).save(paths[-1])
    return paths


@pytest.fixture
def alone(tmp_path: Path, ann_run: Path) -> Path:
    """The two files of a run that are needed."""
    folder = tmp_path / "alone"
    folder.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        shutil.copy(ann_run / name, folder)
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_set.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_set", raising=False)
    return tmp_path / "imported"


@pytest.mark.parametrize("kind", ["ann", "snn"])
def test_files_of_test_images_are_predicted_as_the_run_does(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out, table = request.getfixturevalue(f"{kind}_run"), tmp_path / "out.json", tmp_path / "out.csv"
    paths = written(tmp_path / "images", run)
    flags = ["--batch=7", f"--json={out}", f"--csv={table}"]
    assert main(["predict", str(run), str(tmp_path / "images"), *flags]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    predictions = json.loads(out.read_text())["predictions"]
    kept = read_kept(run)
    with torch.no_grad():
        expected = kept.model(next(kept.data.test.batches(30))[0]).softmax(1)
    assert [each["file"] for each in predictions] == list(map(str, paths))
    assert [each["class"] for each in predictions] == expected.argmax(1).tolist()
    np.testing.assert_allclose([each["probability_by_class"] for each in predictions], expected, atol=1e-6)
    assert len({each["class"] for each in predictions}) > 1
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["file", "class", "probability"]
    assert rows[1:] == [
        [each["file"], str(each["class"]), f"{each['probability']:.4f}"] for each in predictions
    ]
    lines = [line.split("|") for line in said.out.splitlines() if ".png" in line]
    assert [[cell.strip() for cell in line] for line in lines] == rows[1:]


def test_no_data_set_is_read(
    alone: Path, tmp_path: Path, ann_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = written(tmp_path / "images", ann_run, 3)

    def absent(*_: Any) -> Any:
        raise FileNotFoundError("the data set is not here")

    monkeypatch.setitem(DATASETS, "digits", replace(DIGITS, reader=absent, class_names=tuple("abcdefghij")))
    record = predict_run(alone, paths)
    assert len(record["predictions"]) == 3
    assert all(each["name"] == "abcdefghij"[each["class"]] for each in record["predictions"])


def test_what_cannot_be_read_is_named_and_the_others_are_predicted(
    alone: Path, ann_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    good, *_ = written(images, ann_run, 2)
    (images / "a-damaged.png").write_bytes(good.read_bytes()[:50])
    Image.new("RGB", (20, 10), (200, 100, 0)).save(images / "z-large.png")
    (images / "notes.txt").touch()
    values = np.zeros((3, 8, 8), np.float32)
    values[2] = 7
    np.save(images / "several.npy", values)
    nowhere = tmp_path / "nowhere\x1b[31m.png"
    out = tmp_path / "out.json"
    arguments = ["predict", str(alone), str(nowhere), str(images), f"--json={out}"]
    assert main(arguments) == 2
    said, record = capsys.readouterr(), json.loads(out.read_text())
    assert [Path(each["file"]).name for each in record["predictions"]] == [
        "000.png", "001.png", "several.npy[0]", "several.npy[1]"
    ]  # fmt: skip
    assert [Path(each["file"]).name for each in record["failed"]] == [
        nowhere.name, "a-damaged.png", "several.npy", "z-large.png"
    ]  # fmt: skip
    for part in (
        "a-damaged.png: it is no whole",
        "got 20x10: give",
        "--resize",
        "No such file",
        "2 of 6 files were predicted",
    ):
        assert part in said.err
    assert "\x1b" not in said.out + said.err
    assert "Traceback" not in said.err
    assert "1 file of another kind was passed over" in said.out
    assert main([*arguments, "--resize"]) == 2
    said, record = capsys.readouterr(), json.loads(out.read_text())
    assert len(record["predictions"]) == 5
    assert "1 of 5: resized to 8x8 pixels" in said.out
    assert "1 of 5: colours became grey" in said.out


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_names_of_files_need_not_be_text(alone: Path, ann_run: Path, tmp_path: Path) -> None:
    good, *_ = written(tmp_path / "images", ann_run, 1)
    name = os.fsencode(good.with_name("caf")) + b"\xe9.png"
    shutil.copy(good, os.fsdecode(name))
    flags = [f"--csv={tmp_path / 'out.csv'}", f"--json={tmp_path / 'out.json'}"]
    assert main(["predict", str(alone), os.fsdecode(name), *flags]) == 0
    assert name in (tmp_path / "out.csv").read_bytes()
    assert json.loads((tmp_path / "out.json").read_text())["predictions"][0]["file"] == os.fsdecode(name)


def test_outputs_that_are_rates_are_called_so(tmp_path: Path, tiny: Any) -> None:
    config = tiny(
        network={"layers": "20FC-10FC", "readout": "rate"},
        training={"loss": "rate_mse", "epochs": 1},
        prune=False,
        pruning={"target": None, "end_epoch": None},
    )
    train(config)
    paths = written(tmp_path / "images", config.folder, 2)
    (first, _) = predict_run(config.folder, paths)["predictions"]
    kept = read_kept(config.folder)
    with torch.no_grad():
        expected = kept.model(kept.test_samples(1))[0]
    assert first["rate_by_class"] == expected.tolist()
    assert first["rate"] == max(first["rate_by_class"])
    assert "probability" not in first


def test_code_that_a_run_folder_names_is_imported_only_where_allowed(
    alone: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = load_config(alone / "config.yaml")
    data = replace(stored.data, name="own_set:Own", normalise=False)
    (alone / "config.yaml").write_text(replace(stored, data=data).as_yaml())
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(1, 8, 8)))
    assert main(["predict", str(alone), str(tmp_path / "x.npy")]) == 2
    assert "--allow-imports" in capsys.readouterr().err
    assert not own.exists()
    assert main(["predict", str(alone), str(tmp_path / "x.npy"), "--allow-imports"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split("|")[2].strip() == "name"
    assert own.exists()


def test_a_model_file_that_does_not_run(alone: Path, tmp_path: Path, ann_run: Path) -> None:
    paths = written(tmp_path / "images", ann_run, 1)
    kept = read_kept(ann_run)
    with torch.no_grad():
        next(kept.model.parameters())[0] = float("nan")
    dpap.save(kept.model, alone / "model.safetensors")
    with pytest.raises(UserError, match="infinite or undefined numbers"):
        predict_run(alone, paths)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch=0", "x.png"], "--batch must be at least 1"),
        (["x.png"], "dpap: 0 of 1 file was predicted"),
        (["x.png", "y.png"], "dpap: 0 of 2 files were predicted"),
        (["empty"], "no file within that ends in .png"),
        (["--device=tpu", "x.png"], "--device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
        ([], "files"),
    ],
)
def test_mistakes_are_one_message(
    flags: list[str],
    message: str,
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(alone), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Example: dpap" in " ".join(capsys.readouterr().out.split())
