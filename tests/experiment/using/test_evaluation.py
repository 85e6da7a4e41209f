"""`dpap evaluate`: from a run's configuration and model file alone."""

import json
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from dpap.cli import main
from dpap.data import DataConfig, load_data
from dpap.data.digits import DIGITS
from dpap.data.registry import DATASETS
from dpap.experiment.config import load_config
from dpap.experiment.errors import UserError
from dpap.experiment.loop import evaluate
from dpap.experiment.losses import loss_function
from dpap.experiment.scores import scored
from dpap.experiment.sealed import Record, read_json
from dpap.experiment.using.candidates import calibration_samples, samples_of
from dpap.experiment.using.evaluation import Measurements, evaluate_run
from dpap.experiment.using.evaluation_table import evaluation_text
from dpap.experiment.using.kept import read_kept

ALONE = Measurements(rounds=0, runtimes=["PyTorch"])
QUICK = ["--rounds=0", "--runtimes=[PyTorch]"]
OWN = """
from pathlib import Path
import torch
(Path(__file__).parent / "imported").touch()
SHAPE, CLASSES = (1, 8, 8), 10

def make(shape=SHAPE, classes=CLASSES):
    class Own:
        def __len__(self):
            return 12
        def __getitem__(self, i):
            return torch.rand(*shape, generator=torch.Generator().manual_seed(i)), i % classes
    return Own(), Own()
"""


@pytest.fixture
def alone(tmp_path: Path, ann_run: Path) -> Path:
    """The two files of a run that are needed."""
    return with_two_files(ann_run, tmp_path / "alone")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with a data set, and where it leaves a mark when it is imported."""
    (tmp_path / "own_data.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    return tmp_path / "imported"


def with_two_files(run: Path, folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.yaml", "model.safetensors"):
        shutil.copy(run / name, folder)
    return folder


def score_of(record: Record, network: str = "compact", runtime: str = "PyTorch") -> Any:
    return next(each for each in record["scores"] if (each["network"], each["runtime"]) == (network, runtime))


@pytest.mark.parametrize("kind", ["ann", "snn"])
def test_the_scores_are_those_that_the_run_recorded(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue(f"{kind}_run")
    record = evaluate_run(with_two_files(run, tmp_path / "alone"), {}, ALONE)
    found, kept = score_of(record), read_kept(run)
    assert found["accuracy"] == read_json(run / "summary.json")["final_test_accuracy"]
    assert record["recorded_accuracy"] is None  # the summary was left behind
    assert evaluate_run(run, {}, ALONE)["recorded_accuracy"] == found["accuracy"]
    loss_of = loss_function(kept.config.training)
    again = evaluate(kept.model, kept.data.test.batches(25), loss_of, torch.device("cpu"))
    assert (found["loss"], found["accuracy"]) == (again.loss, again.accuracy)
    with torch.no_grad():
        x, labels = next(kept.data.test.batches(60))
        predicted = kept.model(x).argmax(1)
    for label in range(10):
        of_label = predicted[labels == label].tolist()
        assert found["confusion"][label] == [of_label.count(each) for each in range(10)]
        assert found["accuracy_by_class"][label] == of_label.count(label) / len(of_label)
    assert found["samples"] == 60
    assert found["bytes"] == (run / "model.safetensors").stat().st_size
    assert record["timesteps"] == (3 if kind == "snn" else 1)


@pytest.mark.usefixtures("unchecked")
def test_everything_takes_turns_and_is_written_down(
    ann_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "numbers.json"
    flags = ["--batches=[1, 100]", "--rounds=2", "--threads=1", f"--json={out}"]
    assert main(["evaluate", str(ann_run), *flags]) == 0
    said, record = capsys.readouterr().out, json.loads(out.read_text())
    whole = all(find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
    runtimes = ["PyTorch", "onnxruntime"] if whole else ["PyTorch"]
    expected = [(network, runtime) for runtime in runtimes for network in ("dense", "silenced", "compact")]
    expected += [("compact, int8", "onnxruntime")] * whole
    rows = [(each["batch"], each["network"], each["runtime"]) for each in record["latency"]]
    assert rows == [(batch, *each) for batch in (1, 100) for each in expected]
    for each in record["latency"]:
        assert (each["rounds"], each["speed_up_over"]) == (2, ["dense", "PyTorch"])
        assert each["samples_per_second"] * each["milliseconds"] == pytest.approx(1e3 * each["batch"])
    compact = [each for each in expected if each[0].startswith("compact")]
    assert [(each["network"], each["runtime"]) for each in record["scores"]] == compact
    assert record["command"].startswith("dpap evaluate ")
    assert record["machine"]["threads"] == 1
    assert bool(record["machine"]["onnxruntime"]) is (find_spec("onnxruntime") is not None)
    tables = [line for line in said.splitlines() if "|" in line]
    assert max(map(len, tables)) <= 80
    assert "untrained" in said
    assert not [each for each in tmp_path.iterdir() if each.name.endswith(".part")]
    if whole:
        in_float, in_int8 = (score_of(record, name, "onnxruntime") for name in ("compact", "compact, int8"))
        assert in_float["accuracy"] == score_of(record)["accuracy"]
        assert in_int8["bytes"] < in_float["bytes"]
        assert abs(in_int8["accuracy"] - in_float["accuracy"]) <= 0.1
    else:
        assert 'left out: onnxruntime: this export needs onnx: pip install ".[export]"' in said


@pytest.mark.parametrize("absent", ["onnx", "onnxscript", "onnxruntime"])
def test_without_an_extra_the_rest_is_measured(
    absent: str, ann_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    record = evaluate_run(ann_run, {}, Measurements(batches=[1], rounds=2))
    assert 'pip install ".[export]"' in record["left_out"]["onnxruntime"]
    assert {each["runtime"] for each in record["latency"]} == {"PyTorch"}
    assert len(record["latency"]) == 3


@pytest.mark.usefixtures("unchecked")
def test_spikes_are_not_rounded_to_eight_bits(snn_run: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    record = evaluate_run(snn_run, {}, Measurements(rounds=0))
    assert "membrane" in record["left_out"]["compact, int8"]
    assert score_of(record, runtime="onnxruntime")["accuracy"] == score_of(record)["accuracy"]


@pytest.mark.usefixtures("unchecked")
def test_ranges_come_from_the_training_data_of_the_run(
    ann_run: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    calibrated = []

    def noted(data: Any, count: int) -> Any:
        calibrated.append((data.name, len(data.train), count))
        return calibration_samples(data, count)

    monkeypatch.setattr("dpap.experiment.using.evaluation.calibration_samples", noted)
    record = evaluate_run(
        ann_run, {"name": "own_data:make"}, Measurements(rounds=0, calibration=100), allow_imports=True
    )
    assert calibrated == [("digits", 192, 100)]
    assert [each["network"] for each in record["scores"]] == ["compact", "compact", "compact, int8"]


def test_calibration_samples_are_stratified_training_samples() -> None:
    data = load_data(DataConfig(augment=True, train_limit=200))
    batches = list(calibration_samples(data, 100))
    assert [len(each) for each in batches] == [64, 36]
    x, labels = next(data.train.plain().batches(200))
    place = {image.numpy().tobytes(): label for image, label in zip(x, labels.tolist(), strict=True)}
    found = [place[image.numpy().tobytes()] for batch in batches for image in batch]
    assert max(found.count(label) for label in range(10)) <= 12
    assert sum(len(each) for each in calibration_samples(data, 999)) == 200


def test_a_split_that_is_smaller_than_a_batch_begins_again() -> None:
    test = load_data(DataConfig(test_limit=5)).test
    x = samples_of(test, 12)
    assert torch.equal(x, torch.cat([x[:5], x[:5], x[:2]]))
    assert torch.equal(x[:5], next(test.batches(5))[0])


def test_other_data_is_normalised_as_the_network_was_trained(
    alone: Path, ann_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "other", replace(DIGITS, name="other", statistics=((0.9,), (0.1,))))
    record = evaluate_run(alone, {"name": "other", "test_limit": 60}, ALONE)
    assert score_of(record)["accuracy"] == read_json(ann_run / "summary.json")["final_test_accuracy"]
    assert record["recorded_accuracy"] is None
    assert any("mean and deviation of digits" in note for note in record["notes"])
    whole = evaluate_run(alone, {"name": "other"}, ALONE)
    assert score_of(whole)["samples"] == 360  # the run's own limit is not the other set's
    raw = evaluate_run(alone, {"normalise": False}, ALONE)
    assert score_of(raw)["loss"] != score_of(record)["loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": [1, 9, 8]}, "trained on images of 1x8x8; own_data:make has images of 1x9x8"),
        ({"shape": [4, 1, 8, 8]}, "has events in frames of 1x8x8"),
        ({"classes": 11}, "the network has 10 classes, those of digits; own_data:make has 11"),
    ],
)
def test_data_of_another_kind_is_refused(
    arguments: dict[str, Any], message: str, alone: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data.name=own_data:make", f"--data.arguments={json.dumps(arguments)}", *QUICK]
    assert main(["evaluate", str(alone), *flags]) == 2
    assert message in capsys.readouterr().err


def test_fewer_classes_are_noted(alone: Path, own: Path) -> None:
    changes = {"name": "own_data:make", "arguments": {"classes": 4}}
    record = evaluate_run(alone, changes, ALONE, allow_imports=True)
    assert "own_data:make has 4 of the network's 10 classes" in record["notes"]
    assert "note: own_data:make has 4 of" in evaluation_text(record)
    assert score_of(record)["accuracy_by_class"][4:] == [None] * 6


def test_code_that_a_run_folder_names_is_imported_only_where_allowed(
    alone: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = alone / "config.yaml"
    stored = load_config(config)
    data = replace(stored.data, name="own_data:make", normalise=False)
    config.write_text(replace(stored, data=data).as_yaml())
    assert main(["evaluate", str(alone), *QUICK]) == 2
    assert "--allow-imports" in capsys.readouterr().err
    assert main(["evaluate", str(alone), *QUICK, "--data.name=digits"]) == 0
    other = own.with_name("other.yaml")
    other.write_text("name: own_data:make\n")
    assert main(["evaluate", str(alone), *QUICK, f"--data={other}"]) == 2
    assert "--allow-imports" in capsys.readouterr().err
    assert not own.exists()
    for flags in (["--allow-imports"], ["--data.name", "own_data:make"]):
        assert main(["evaluate", str(alone), *QUICK, *flags]) == 0
        assert own.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounds=1"], "--rounds must be at least 2, or 0"),
        (["--batches=[0]"], "--batches are numbers of samples"),
        (["--batches=[]"], "--batches are numbers of samples"),
        (["--threads=0"], "--threads must be at least 1"),
        (["--calibration=0"], "--calibration must be at least 1"),
        (["--runtimes=[tensorrt]"], "--runtimes are of PyTorch, onnxruntime"),
        (["--runtimes=[]"], "--runtimes are of PyTorch, onnxruntime"),
        (["--device=tpu"], "--device must be auto, cpu, cuda or cuda:N; got 'tpu'"),
        (["--data.name=imagenet"], "imagenet"),
        (["--data.timesteps=0"], "timesteps must be at least 1"),
        (["--data.epochs=3"], "epochs"),
    ],
)
def test_mistakes_are_one_message(
    flags: list[str], message: str, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(alone), *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_folder_without_a_whole_run(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(alone / "nowhere")]) == 2
    assert "holds no run" in capsys.readouterr().err
    model = alone / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-5] ^= 1
    model.write_bytes(content)
    assert main(["evaluate", str(alone), *QUICK]) == 2
    assert "its checksum does not fit" in capsys.readouterr().err
    model.unlink()
    assert main(["evaluate", str(alone)]) == 2
    assert "is not finished" in capsys.readouterr().err


def test_a_damaged_summary_is_a_note(alone: Path) -> None:
    (alone / "summary.json").write_text("{")
    record = evaluate_run(alone, {}, ALONE)
    assert record["recorded_accuracy"] is None
    assert any("summary.json: expected JSON" in note for note in record["notes"])


def test_scores_of_nothing_and_of_labels_outside() -> None:
    loss_of, cpu = torch.nn.functional.cross_entropy, torch.device("cpu")
    with pytest.raises(UserError, match="no test sample"):
        scored(lambda x: x, [], loss_of, cpu, 3)
    with pytest.raises(UserError, match=r"labels must lie in 0 to 2; got 0 to 3"):
        scored(lambda x: x, [(torch.rand(2, 3), torch.tensor([0, 3]))], loss_of, cpu, 3)
