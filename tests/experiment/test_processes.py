import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from dpap.data import Split
from dpap.experiment.comparing.compare import compare
from dpap.experiment.comparing.grid import Row, plan
from dpap.experiment.comparing.jobs import compare_in_processes
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.errors import UserError
from dpap.experiment.processes import everywhere, lost, processes
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.sealed import read_json, read_lines
from dpap.experiment.train import resume, train
from dpap.pruning.distributed import Ranks, RanksError
from support.ranks import launched, next_port
from support.runs import StopAt

pytestmark = pytest.mark.timeout(1200)

SMALL: dict[str, Any] = {
    "network": {"layers": "12FC-8FC-10FC", "neuron": "relu"},
    "training": {"epochs": 3},
    "pruning": {"end_epoch": 3},
}


def small(tiny: Any, **how: Any) -> ExperimentConfig:
    """A small network without normalisation, of batches whose parts are not equally large."""
    config: ExperimentConfig = tiny(**{**SMALL, **how})
    data = replace(config.data, train_limit=120, test_limit=41, validation=0.2, batch_size=31)
    return replace(config, data=data)


def _wrapped_again_and_again(times: int) -> int:
    """A wrapped network that goes only after the group was destroyed, so many times."""
    for _ in range(times):
        with processes("cpu", timeout=60):
            network = DistributedDataParallel(
                torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(4)])
            )
            network(torch.ones(8, 64)).sum().backward()
        del network
        next_port()
    return times


def test_a_wrapped_network_that_outlives_its_processes_does_not_hang(tmp_path: Path) -> None:
    assert launched(_wrapped_again_and_again, 2, tmp_path, 40) == [40, 40]


def _train_and_stop(config: ExperimentConfig) -> Any:
    """One run to its end, and another that the first process stops; the others lose it."""
    whole = train(config, timeout=120)
    stopped = replace(config, out=f"{config.folder}-stopped")
    next_port()
    try:
        train(stopped, progress=StopAt(epoch=3, batch=2), timeout=120)
        return whole, None
    except (KeyboardInterrupt, UserError) as error:
        return whole, f"{type(error).__name__}: {error}"


def test_a_run_in_two_processes_is_that_of_one_and_goes_on_in_one(tiny: Any, tmp_path: Path) -> None:
    alone = small(tiny)
    train(alone)
    together = replace(alone, out=str(tmp_path / "two"))
    (first, stopped), (second, left) = launched(_train_and_stop, 2, tmp_path / "ranks", together)

    assert first == read_json(RunFolder(together.folder).summary) and second == {}
    assert read_json(RunFolder(together.folder).facts)["processes"] == 2
    ours, theirs = (read_lines(RunFolder(one.folder).metrics) for one in (together, alone))
    for one, other in zip(ours, theirs, strict=True):
        assert one["layers"] == other["layers"] and one["validation_accuracy"] == other["validation_accuracy"]
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-4)
    model, expected = (load_file(RunFolder(one.folder).model) for one in (together, alone))
    assert {name: one.shape for name, one in model.items()} == {
        name: one.shape for name, one in expected.items()
    }

    assert stopped == "KeyboardInterrupt: "
    assert left.startswith("UserError: process 1 of 2 cannot go on")
    assert "The state after epoch 2 is in" in left and "--resume" in left
    summary = resume(f"{together.folder}-stopped")
    assert summary["epochs"] == 3
    assert summary["after"]["parameters"] == first["after"]["parameters"]
    assert summary["final_test_accuracy"] == first["final_test_accuracy"]


def test_parts_of_batches_are_the_batches_of_one_process(tiny: Any) -> None:
    from dpap.data import load_data

    data = load_data(replace(tiny().data, augment=True))
    split: Split = data.train
    whole = list(split.batches(13, shuffle_seed=1))
    parts = [list(split.batches(13, shuffle_seed=1, part=(number, 3))) for number in range(3)]
    for (x, y), *shared in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part for part, _ in shared]), x)
        assert torch.equal(torch.cat([labels for _, labels in shared]), y)
        assert {len(labels) for _, labels in shared} <= {len(y) // 3, len(y) // 3 + 1}


def test_errors_between_processes_are_told_from_others() -> None:
    ranks = Ranks()
    ranks.number = 2
    with pytest.raises(UserError, match=r"process 0 of 2 cannot go on: gone\. Wait"), lost(ranks, "Wait"):
        raise RanksError("gone")
    with pytest.raises(UserError, match="another process ended"), lost(ranks, "Wait"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), lost(ranks, "Wait"):
        raise RuntimeError("shape mismatch")
    with pytest.raises(RanksError), lost(Ranks(), ""):
        raise RanksError("alone there is none to lose")
    assert everywhere(Ranks(), "", lambda: 3) == 3


def test_a_comparison_in_two_processes_is_that_of_one_and_names_what_failed(
    tiny: Any, tmp_path: Path
) -> None:
    config = small(tiny)
    broken = small(tiny, training={"epochs": 3, "learning_rate": 1e30, "optimizer": "sgd"})
    done = {}
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        rows = [
            Row("tiny", config, ["dense", "dpap"], [0.5], [0], Path("tiny")),
            Row("broken", broken, ["dense"], [], [0], Path("broken")),
        ]
        runs = plan(rows, folder)
        done[jobs] = (
            compare_in_processes(runs, folder, jobs, quiet=True) if jobs > 1 else compare(runs, folder)
        )
    for one in done.values():
        assert [run.recipe for run, _ in one.failed] == ["broken"] and "the loss is" in one.failed[0][1]
        assert len(one.results) == 2
    for one, other in zip(done[1].results, done[2].results, strict=True):
        assert (one.method, one.accuracy, one.weights) == (other.method, other.accuracy, other.weights)
    for model in (tmp_path / "1").rglob("model.safetensors"):
        ours, theirs = load_file(model), load_file(tmp_path / "2" / model.relative_to(tmp_path / "1"))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_process_ends_where_the_one_that_started_it_is_killed(tmp_path: Path) -> None:
    """It would hold the lock of its run, and a GPU, and nothing could go on."""
    script = tmp_path / "main.py"
    script.write_text(
        "import multiprocessing, os, time\n"
        "from dpap.experiment.comparing.jobs import end_with_parent\n"
        "def work():\n"
        "    end_with_parent()\n"
        "    print('works', flush=True)\n"
        "    time.sleep(300)\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.get_context('spawn').Process(target=work).start()\n"
    )
    started = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    with started.stdout as output:
        assert output.readline() == "works\n"
        started.kill()
        started.wait()
        assert output.read() == ""  # ends only when nothing holds the other side of the pipe
