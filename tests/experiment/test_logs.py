import json
import sys
import types
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dpap.experiment.config import complete, load_run_config
from dpap.experiment.errors import UserError
from dpap.experiment.logs import scalars
from dpap.experiment.progress import Quiet
from dpap.experiment.train import resume, train

MODULE = "torch.utils.tensorboard"
SMALL = {"layers": "6FC-10FC", "neuron": "relu"}
SHORT = {"epochs": 3, "log": "tensorboard"}


class Written:
    """Takes the place of SummaryWriter: a line of JSON for every value."""

    def __init__(self, log_dir: str) -> None:
        Path(log_dir).mkdir(exist_ok=True)
        self.path = Path(log_dir, "events.out.tfevents.0")

    def add_scalar(self, name: str, value: float, step: int) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([name, value, step]) + "\n")

    def add_histogram(self, name: str, values: Any, step: int) -> None:
        self.add_scalar(name, values.tolist(), step)

    def flush(self) -> None:
        """Nothing is kept back."""

    close = flush


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(MODULE)
    module.SummaryWriter = Written  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)


class Stop(Quiet):
    """Interrupts a run after its second epoch."""

    ended: ClassVar[int] = 2

    def end_epoch(self, record: dict[str, Any], epochs: int, seconds_left: float) -> None:
        if record["epoch"] == self.ended:
            raise KeyboardInterrupt


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_numbers_of_a_record() -> None:
    record = {
        "epoch": 3,
        "train_loss": 0.5,
        "achieved": None,
        "target_of": "weights",
        "epsilon": {"conv": 1.5},
        "compacted": {"parameters_after": 7, "checked": True},
        "layers": [{"name": "fc1", "kind": "neuron", "units": 6, "timesteps_alive": 1.0}],
    }
    assert dict(scalars(record)) == {
        "train_loss": 0.5,
        "epsilon/conv": 1.5,
        "compacted/parameters_after": 7,
        "layers/fc1/units": 6,
        "layers/fc1/timesteps_alive": 1.0,
    }


def test_every_epoch_is_logged_once_and_nothing_else_changes(tiny: Any, written: None) -> None:
    config = tiny(network=SMALL, training=SHORT)
    log = config.folder / "tensorboard" / "events.out.tfevents.0"
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Stop())
    log.write_text(log.read_text() + json.dumps(["train_loss", 9.0, 3]) + "\n")  # of an epoch that was lost
    resume(config.folder)
    values = {(name, step): value for name, value, step in lines(log)}
    assert Counter((name, step) for name, _, step in lines(log)).most_common(1)[0][1] == 1
    records = lines(config.folder / "metrics.jsonl")
    assert {
        (name, record["epoch"]): value for record in records for name, value in scalars(record)
    }.items() <= (values.items())
    for line in lines(config.folder / "survival.jsonl"):
        alive = [unit for unit in line["layers"]["fc1"] if unit is not None]
        assert values["survival/fc1", line["epoch"]] == pytest.approx(alive)
    model = (config.folder / "model.safetensors").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, training=replace(config.training, log=None)), overwrite=True, progress=Stop())
    assert not log.parent.exists()
    path = config.folder / "config.yaml"
    path.write_text(path.read_text().replace("log: null", "log: tensorboard"))  # taken up later
    resume(config.folder)
    again = {(name, step) for name, _, step in lines(log)}
    assert again == values.keys()
    assert (config.folder / "model.safetensors").read_bytes() == model


def test_what_earlier_versions_wrote_has_no_log(tiny: Any, tmp_path: Path) -> None:
    stored = tiny().as_dict()
    del stored["training"]["log"]
    assert complete(stored) == tiny().as_dict()
    path = tmp_path / "config.yaml"
    path.write_text(tiny().as_yaml().replace("  log: null\n", ""))
    assert "log" not in path.read_text() and load_run_config(path) == tiny()


@pytest.mark.parametrize("resumed", [False, True])
def test_without_the_package_it_is_said_at_the_start(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    config = tiny(training=SHORT)
    if resumed:
        config.folder.mkdir()
        (config.folder / "config.yaml").write_text(config.as_yaml())
    with pytest.raises(UserError, match=r'pip install "\.\[tensorboard\]"'):
        resume(config.folder) if resumed else train(config)
    assert config.folder.exists() is resumed


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard")
@pytest.mark.filterwarnings("default")
def test_tensorboard_reads_what_was_written(tiny: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny(network=SMALL, training=SHORT)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Stop())
    resume(config.folder)
    events = EventAccumulator(str(config.folder / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    for record in lines(config.folder / "metrics.jsonl"):
        for name, value in scalars(record):
            found = [each.value for each in events.Scalars(name) if each.step == record["epoch"]]
            assert found == [pytest.approx(value, rel=1e-6)]
    assert [each.step for each in events.Histograms("survival/fc1")] == [1, 2, 3]
