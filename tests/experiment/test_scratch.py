"""Small networks from scratch: their costs are counted here by hand, from the notation of the networks."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dpap.data import load_data
from dpap.experiment.comparing.compare import compare
from dpap.experiment.comparing.grid import Planned, Row, plan
from dpap.experiment.config import ExperimentConfig
from dpap.experiment.errors import UserError
from dpap.experiment.learner import build_learner, build_model, example_of
from dpap.experiment.progress import Quiet
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.scratch import Scratch, narrowed, restructured
from dpap.experiment.sealed import read_json, read_lines
from dpap.experiment.train import resume, train
from dpap.models import NetworkConfig, build_network
from dpap.spiking import PLIF
from dpap.surgery.storage import load
from support.runs import StopAt, same_bits, timeless

CPU = torch.device("cpu")
Costs = dict[str, int]


def spiking(c: int, f: int) -> Costs:
    """6C3-BN-AvgPool2-20FC-10FC on digits, T = 2: the first layer runs once for an image."""
    first, others = 9 * c, 16 * c * f + 10 * f
    weights = first + others
    return {"weights": weights, "parameters": weights + 2 * c + f + 10, "macs": 64 * first + 2 * others}


def ordinary(a: int, b: int, f: int) -> Costs:
    """8C3-MaxPool2-12C3-BN-30FC-10FC on digits."""
    weights = 9 * a + 9 * a * b + 16 * b * f + 10 * f
    macs = 64 * 9 * a + 16 * 9 * a * b + 16 * b * f + 10 * f
    return {"weights": weights, "parameters": weights + a + 2 * b + f + 10, "macs": macs}


def resnet20(a: int, b: int, c: int) -> Costs:
    """Maps of 8 x 8, 4 x 4 and 2 x 2 on digits; the shortcuts into stages 2 and 3 are convolutions of 1 x 1."""
    one, two, three = 9 * a + 54 * a * a, 9 * a * b + 45 * b * b + a * b, 9 * b * c + 45 * c * c + b * c
    weights = one + two + three + 10 * c
    return {
        "weights": weights,
        "parameters": weights + 14 * (a + b + c) + 10,
        "macs": 64 * one + 16 * two + 4 * three + 10 * c,
    }


NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, ...], Callable[..., Costs]]] = {
    "spiking": ({}, (6, 20), spiking),
    "wide": ({"width": 2.5}, (6, 20), spiking),
    "ordinary": (
        {"layers": "8C3-MaxPool2-12C3-BN-30FC-10FC", "neuron": "relu"},
        (8, 12, 30),
        ordinary,
    ),
    "resnet20": ({"layers": "resnet20", "neuron": "relu"}, (16, 32, 64), resnet20),
}
"""What is configured, units of its layers that a width scales, and their costs."""


def widened(units: tuple[int, ...], width: float) -> tuple[int, ...]:
    return tuple(max(1, round(number * width)) for number in units)


def all_widths(units: tuple[int, ...], largest: float) -> set[tuple[int, ...]]:
    """Units of the layers under every width up to the largest: something is rounded differently at (k + 1/2) / n."""
    edges = {(k + 0.5) / number for number in units for k in range(1, int(number * largest) + 1)}
    edges = sorted({0.0, largest, *(edge for edge in edges if edge < largest)})
    between = [(low + high) / 2 for low, high in pairwise(edges)]
    return {widened(units, width) for width in (*between, largest)}


@pytest.mark.parametrize(("network", "of"), [
    *product(("spiking", "wide", "ordinary", "resnet20"), ("weights", "parameters", "macs")),
])  # fmt: skip
def test_no_width_comes_nearer_to_the_target(network: str, of: str, tiny: Any) -> None:
    changes, units, costs = NETWORKS[network]
    config = tiny(network=changes)
    data = load_data(config.data)
    largest = config.network.width
    dense = costs(*widened(units, largest))[of]
    possible = [costs(*each)[of] for each in all_widths(units, largest)]
    for target in (0.9, 0.98) if "resnet" in network else (0.0, 0.3, 0.9, 0.98, 0.9999):
        pruning = replace(config.pruning, target=target, target_of=of)
        small = narrowed(replace(config, pruning=pruning), data, example_of(data, CPU, samples=1))
        assert replace(small, width=largest) == config.network
        counted = costs(*widened(units, small.width))
        assert sum(p.numel() for p in build_network(small, (1, 8, 8)).parameters()) == counted["parameters"]
        goal = (1 - target) * dense
        assert abs(counted[of] - goal) == min(abs(cost - goal) for cost in possible)


@pytest.mark.parametrize(("changes", "message"), [
    ({"target": None, "end_epoch": None}, r"needs pruning\.target, the share .* smaller; got null"),
    ({"target_of": "energy"}, r"its weights, parameters, macs; got pruning\.target_of 'energy'.*choose one of these"),
    ({"target_of": "synaptic_operations"}, "got pruning.target_of 'synaptic_operations'"),
])  # fmt: skip
def test_a_target_that_no_width_follows_from_is_refused(
    changes: dict[str, Any], message: str, tiny: Any, tmp_path: Path
) -> None:
    config = tiny(method="scratch", pruning=changes)
    with pytest.raises(UserError, match=message):
        train(config)
    assert not RunFolder(config.folder).holds_a_run()
    with pytest.raises(UserError, match=f"tiny: .*{message}"):
        plan([Row("tiny", tiny(pruning=changes), ["dpap", "scratch"], [], [0])], tmp_path)


@pytest.mark.parametrize("of", ["weights", "parameters", "macs"])
def test_a_small_network_is_trained_and_reported(of: str, tiny: Any) -> None:
    config: ExperimentConfig = tiny(
        method="scratch",
        network=NETWORKS["ordinary"][0],
        pruning={"target": 0.7, "target_of": of},
        training={"epochs": 6},
        data={"validation": 0.2},
        protocol="validation",
    )
    summary = train(config)
    data = load_data(config.data)
    network = narrowed(config, data, example_of(data, CPU, samples=1))
    a, b, f = widened((8, 12, 30), network.width)
    small, dense = ordinary(a, b, f), ordinary(8, 12, 30)
    folder = RunFolder(config.folder)
    records = read_lines(folder.metrics)
    assert records[-1]["train_loss"] < 0.8 * records[0]["train_loss"]
    for record in (*records, summary):
        assert record["sparsity"] == pytest.approx(1 - small["weights"] / dense["weights"])
        assert record["achieved"] == pytest.approx(1 - small[of] / dense[of])
        assert (record["target_of"], record["timestep_sparsity"]) == (of, 0.0)
    assert summary["achieved"] == pytest.approx(0.7, abs=0.05)
    keys = ("name", "kind", "units", "alive", "weights", "weights_alive")
    assert [tuple(layer[key] for key in keys) for layer in records[-1]["layers"]] == [
        ("conv1", "conv", 8, a, 72, 9 * a),
        ("conv2", "conv", 12, b, 864, 9 * a * b),
        ("fc1", "fc", 30, f, 5760, 16 * b * f),
        ("fc2", "fc", 10, 10, 300, 10 * f),
    ]
    for name in ("weights", "parameters", "macs"):
        assert (summary["before"][name], summary["after"][name]) == (dense[name], small[name])
    model = load(folder.model, build_network(config.network, (1, 8, 8)))
    alike = build_network(network, (1, 8, 8))
    alike.load_state_dict(model.state_dict())
    x, labels = next(data.test.batches(1000))
    with torch.no_grad():
        accuracy = (alike.eval()(x).argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(summary["final_test_accuracy"], abs=1e-6)
    assert all(line["layers"] == {} for line in read_lines(folder.survival))


def test_events_are_counted_one_sample_at_a_time() -> None:
    model, dense = (build_network(NetworkConfig("8C3-10FC", width=width), (2, 8, 8)) for width in (0.5, 1.0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = Scratch(model, torch.rand(3, 5, 2, 8, 8), optimizer, dense, {}, "macs").step()
    assert report.achieved == 0.5


# --- a network of the structure that another run ended with


@pytest.fixture
def pruned(tiny: Any, tmp_path: Path) -> Callable[..., ExperimentConfig]:
    """pruned(...): the configuration of a run from scratch of the structure of a pruned run, which is finished."""

    def make(**how: Any) -> ExperimentConfig:
        source = tiny(out=str(tmp_path / "source"), **how)
        train(source)
        return tiny(method="scratch", structure=str(RunFolder(source.folder).model), **how)

    return make


def source_of(config: ExperimentConfig) -> dict[str, Tensor]:
    return load_file(str(config.structure))


def weight_names(state: dict[str, Tensor]) -> list[str]:
    return [name for name, value in state.items() if value.ndim > 1 and value.is_floating_point()]


class Watched(Quiet):
    """Looks at the network of a run in the middle of every epoch."""

    def __init__(self, look: Callable[[], None]) -> None:
        self.look, self.looks = look, 0

    def batch(self, done: int) -> None:
        self.look()
        self.looks += 1


@pytest.mark.parametrize("how", [
    {},
    {"pruning": {"target": 0.8}, "training": {"optimizer": "sgd", "learning_rate": 0.05, "weight_decay": 0.01}},
    {"pruning": {"synapses": False}},
    {"training": {"channels_last": True, "precision": "bfloat16"}},
    {"network": {"layers": "6C3-MaxPool2-20FC-10FC", "neuron": "relu"}},
], ids=["units and synapses", "sgd", "units", "channels last", "ordinary"])  # fmt: skip
def test_widths_and_zeros_are_those_of_the_run_and_stay_so(
    how: dict[str, Any], pruned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pruned(**how)
    source = source_of(config)
    learners: list[Any] = []
    monkeypatch.setattr(
        "dpap.experiment.train.build_learner",
        lambda *given: learners.append(build_learner(*given)) or learners[-1],
    )
    initial: list[dict[str, Tensor]] = []

    def look() -> None:
        state = learners[0].model.state_dict()
        for name in weight_names(source):
            assert torch.equal(state[name] == 0, source[name] == 0), name
        if not initial:
            initial.append({name: value.clone() for name, value in state.items()})

    watched = Watched(look)
    summary = train(config, progress=watched)
    assert watched.looks == 4 * 6
    state = load_file(RunFolder(config.folder).model)
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in source.items()
    }
    for name in weight_names(source):
        alive = source[name] != 0
        assert torch.equal(state[name] != 0, alive), name
        # neither the weights that the run ended with nor those that training began with
        assert not (initial[0][name] == source[name])[alive].any(), name
        assert not torch.equal(state[name], initial[0][name]), name
    other = read_json(Path(str(config.structure)).with_name("summary.json"))
    for name in ("sparsity", "achieved"):
        assert summary[name] == pytest.approx(other[name]), name
    for name in ("parameters", "weights", "macs"):
        assert summary["after"][name] == other["after"][name], name


def test_dead_timesteps_stay_dead(pruned: Any, tmp_path: Path) -> None:
    config = pruned(network={"timesteps": 6}, pruning={"timestep_target": 0.4})
    config = replace(config, pruning=replace(config.pruning, timestep_target=None))
    summary = train(config)
    ours, theirs = load_file(RunFolder(config.folder).model), source_of(config)
    masks = [name for name in theirs if name.endswith("timestep_alive")]
    assert len(masks) == 2
    assert all(torch.equal(ours[name], theirs[name]) and not theirs[name].all() for name in masks)
    other = read_json(tmp_path / "source" / "summary.json")
    assert summary["timestep_sparsity"] == pytest.approx(other["timestep_sparsity"])
    assert summary["timestep_sparsity"] == pytest.approx(0.4, abs=0.05)
    assert summary["after"]["energy"] == pytest.approx(other["after"]["energy"])
    layers = [read_lines(tmp_path / run / "metrics.jsonl")[-1]["layers"] for run in ("run", "source")]
    for one, another in zip(*layers, strict=True):
        assert one["timesteps_alive"] == pytest.approx(another["timesteps_alive"])


def test_what_activity_decides_is_not_reported_as_the_share_of_the_weights(pruned: Any) -> None:
    summary = train(pruned(pruning={"target_of": "energy"}))
    assert summary["target_of"] == "weights"
    assert summary["achieved"] == pytest.approx(summary["sparsity"])


@pytest.mark.parametrize("network", [
    {"layers": "12C3-BN-AvgPool2-16C3-60FC-10FC", "neuron": "plif", "tau": 3.0, "threshold": 0.5},
    {"layers": "12C3-BN-MaxPool2-16C3-60FC-BN-10FC", "neuron": "relu"},
    {"layers": "resnet20", "neuron": "relu", "width": 0.5, "zero_init": True},
], ids=["plif", "relu", "resnet20"])  # fmt: skip
def test_new_weights_are_those_of_a_new_network_of_the_sizes(network: dict[str, Any], pruned: Any) -> None:
    pruning = {"start_epoch": 0, "end_epoch": 1, "synapses": False, "compact": "manual"}
    config = pruned(network=network, training={"epochs": 1}, pruning=pruning)
    data = load_data(config.data)

    def made(seed: int = 0) -> nn.Module:
        model = build_model(config, data, CPU)
        assert restructured(replace(config, seed=seed), model) == {}
        return model

    model = made()
    modules = list(model.modules())
    fresh = build_network(config.network, (1, 8, 8))
    assert sum(p.numel() for p in model.parameters()) < 0.8 * sum(p.numel() for p in fresh.parameters())
    rectified = config.network.neuron == "relu"
    gain = sqrt(2) if rectified else 4.0 * config.network.threshold
    weighted = [module for module in modules if isinstance(module, nn.Conv2d | nn.Linear)]
    drawn = []
    for module in weighted:
        inputs = module.weight[0].numel()
        assert inputs == (
            module.in_features
            if isinstance(module, nn.Linear)
            else module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        )
        drawn.append(
            module.weight.detach().flatten() * sqrt(inputs) / (1.0 if module is weighted[-1] else gain)
        )
        assert module.weight.grad is None
        assert module.bias is None or not module.bias.any()
    unit = torch.cat(drawn)
    assert unit.mean().item() == pytest.approx(0, abs=4 / sqrt(len(unit)))
    assert unit.std().item() == pytest.approx(1, abs=4 / sqrt(2 * len(unit)))
    for each in drawn:
        assert each.std().item() == pytest.approx(1, abs=5 / sqrt(2 * len(each)))
    norms = [module for module in modules if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    for name, module in model.named_modules():
        if module in norms:
            identity = config.network.zero_init and name.endswith("bn2")
            scale = 0.0 if identity else 1.0 if rectified else config.network.threshold
            assert torch.equal(module.weight, torch.full_like(module.weight, scale))
            assert torch.equal(module.running_var, torch.ones_like(module.running_var))
            assert not module.bias.any() and not module.running_mean.any() and not module.num_batches_tracked
    for module in modules:
        if isinstance(module, PLIF):
            assert torch.equal(module.w, PLIF(config.network.tau).w)
    # drawn by the seed of the run, whatever was drawn before
    torch.manual_seed(5)
    again = made()
    assert all(
        torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True)
    )
    other = made(seed=1)
    assert not torch.equal(other.conv1.weight, model.conv1.weight)


@pytest.mark.parametrize("how", [
    {},
    {"data": {"validation": 0.2}, "protocol": "validation"},
    {"training": {"optimizer": "sgd", "learning_rate": 0.05}, "pruning": {"synapses": False}},
], ids=["last", "validation", "sgd"])  # fmt: skip
def test_an_interrupted_run_goes_on_to_the_same_bits(
    how: dict[str, Any], pruned: Any, tmp_path: Path
) -> None:
    config = pruned(**how)
    whole = train(config)
    shutil.move(config.folder, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=StopAt(epoch=3, batch=2))
    torch.manual_seed(99)
    assert timeless(resume(config.folder)) == timeless(whole)
    same_bits(config.folder, tmp_path / "whole")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (config.folder, tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_a_run_is_not_resumed_with_another_structure(pruned: Any, tiny: Any, tmp_path: Path) -> None:
    config = pruned()
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=StopAt(epoch=3, batch=2))
    structure = Path(str(config.structure))
    own = structure.read_bytes()
    for changes in ({"seed": 1}, {"pruning": {"target": 0.3, "synapses": False}}):
        other = train(tiny(out=str(tmp_path / "other"), **changes), overwrite=True)
        assert other["sparsity"] > 0.2
        shutil.copy(tmp_path / "other" / "model.safetensors", structure)
        with pytest.raises(
            UserError, match=r"other widths or zeros than in the checkpoint; put .* back .*--overwrite"
        ):
            resume(config.folder)
    structure.write_bytes(own)
    resume(config.folder)


def test_a_structure_that_is_not_there_or_fits_not_is_named(pruned: Any, tiny: Any, tmp_path: Path) -> None:
    missing = tiny(method="scratch", structure=str(tmp_path / "nowhere" / "model.safetensors"))
    with pytest.raises(
        UserError, match=r"expected the model file of a finished run.*nowhere.*finish that run first"
    ):
        train(missing)
    with pytest.raises(UserError, match="expected the model file"):
        train(replace(missing, structure=str(tmp_path)))
    config = pruned(training={"epochs": 2}, pruning={"end_epoch": 2})
    for changes, message in (
        ({"layers": "6C3-AvgPool2-20FC-10FC"}, r"(?s)structure: .*another network.*bn1.weight: in the file, not"),
        ({"width": 0.3}, r"(?s)structure: .*another network.*the network only.*build the network as it was"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            train(replace(config, network=replace(config.network, **changes)))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"structure: .*damaged"):
        train(replace(config, structure=str(damaged)))
    assert not RunFolder(config.folder).holds_a_run()


# --- in a comparison


@pytest.fixture
def planned(tiny: Any) -> Callable[..., list[Planned]]:
    def make(folder: Path, methods: list[str], **how: Any) -> list[Planned]:
        config = tiny(**{"training": {"epochs": 2}, "pruning": {"end_epoch": 2}, **how})
        return plan([Row("tiny", config, methods, [0.6], [0])], folder)

    return make


def test_controls_are_compared_with_what_they_control(planned: Any, tmp_path: Path) -> None:
    runs = planned(tmp_path, ["scratch_widths", "scratch", "dpap"])
    done = compare(runs, tmp_path)
    assert not done.failed
    results = {each.method: each for each in done.results}
    assert list(results) == ["dense", "dpap", "scratch_widths", "scratch"]
    for method in ("dpap", "scratch_widths", "scratch"):
        assert results[method].achieved == pytest.approx(0.6, abs=0.02 if method != "scratch" else 0.05)
        kept = results[method].weights / results["dense"].weights
        assert results[method].achieved == pytest.approx(1 - kept, abs=1e-9)
    same = ("weights", "parameters", "macs", "sparsity")
    assert all(getattr(results["dpap"], name) == getattr(results["scratch_widths"], name) for name in same)


def test_no_share_is_given_of_what_was_not_counted(planned: Any, tmp_path: Path) -> None:
    how = {"target_of": "energy", "end_epoch": 2}
    results = compare(planned(tmp_path, ["dpap", "scratch_widths"], pruning=how), tmp_path).results
    assert [each.target_of for each in results[1:]] == ["energy", "energy"]
    assert results[1].achieved is not None and results[2].achieved is None


def test_a_comparison_whose_folder_was_moved_goes_on(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["dpap", "scratch_widths"]
    whole = compare(planned(tmp_path / "whole", methods), tmp_path / "whole").results
    runs = planned(tmp_path / "old", methods)
    compare(runs[:2], tmp_path / "old")
    with pytest.raises(KeyboardInterrupt):
        compare(runs, tmp_path / "old", progress=lambda: StopAt(epoch=2, batch=2))
    shutil.move(tmp_path / "old", tmp_path / "new")
    stopped = tmp_path / "new" / "scratch_widths-0.6-seed0"
    shutil.copytree(tmp_path / "new", tmp_path / "alone")
    done = compare(planned(tmp_path / "new", methods), tmp_path / "new")
    assert not done.failed
    same_bits(stopped, tmp_path / "whole" / stopped.name)
    assert [each.accuracy for each in done.results] == [each.accuracy for each in whole]
    # by itself, under a relative path
    shutil.rmtree(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "alone")
    resume(Path(stopped.name))
    same_bits(tmp_path / "alone" / stopped.name, tmp_path / "whole" / stopped.name)


def test_the_source_of_a_structure_is_planned_or_there(planned: Any, tmp_path: Path, tiny: Any) -> None:
    with pytest.raises(
        UserError,
        match=r"tiny: scratch_widths 0\.6, seed 0 has the structure that dpap .*; expected that run in the comparison, "
        r"or finished in .*dpap-0\.6-seed0: add dpap to the methods",
    ):
        planned(tmp_path, ["scratch_widths"])
    # of another target or seed, or in another folder, is not enough
    row = Row("tiny", tiny(), ["scratch_widths"], [0.6], [0])
    for other in (
        replace(row, methods=["dpap"], targets=[0.5]),
        replace(row, methods=["dpap"], seeds=[1]),
        replace(row, methods=["dpap"], folder=Path("other")),
    ):
        with pytest.raises(UserError, match="add dpap to the methods"):
            plan([row, other], tmp_path)
    # of another row it is, and comes first
    names = ["dense", "dpap", "scratch_widths"]
    changed = replace(row, methods=["dpap"], config=tiny(pruning={"synapses": False}))
    with pytest.raises(UserError, match=r"tiny: dpap 0\.6, seed 0 is planned twice, with two configurations"):
        plan([row, changed], tmp_path)
    assert [run.method for run in plan([row, replace(row, methods=["dpap"])], tmp_path)] == names
    assert [run.method for run in planned(tmp_path, ["scratch_widths", "dpap"])] == names
    compare(planned(tmp_path, ["dpap"]), tmp_path)
    runs = planned(tmp_path, ["scratch_widths"])
    assert [run.method for run in runs] == ["dense", "scratch_widths"]
    assert not compare(runs, tmp_path).failed


def test_the_source_of_a_structure_is_of_the_same_configuration(planned: Any, tmp_path: Path) -> None:
    compare(planned(tmp_path, ["dpap"]), tmp_path)
    runs = planned(tmp_path, ["scratch_widths"], pruning={"end_epoch": 2, "synapses": False})
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"dpap-0\.6-seed0 holds a run with another configuration"):
            compare(runs, tmp_path, overwrite=overwrite)
    assert not RunFolder(runs[-1].config.folder).holds_a_run()


def test_a_run_waits_for_its_source_in_another_process(
    planned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpap.experiment.comparing.compare import _lock

    runs = planned(tmp_path, ["dpap", "scratch_widths"])
    with _lock(runs[1], tmp_path):
        done = compare(runs, tmp_path)
    assert not done.failed
    assert [run.method for run in done.elsewhere] == ["dpap", "scratch_widths"]
    assert [each.method for each in compare(runs, tmp_path).results] == ["dense", "dpap", "scratch_widths"]


def test_units_with_few_inputs_alive_start_with_weights_for_these(pruned: Any) -> None:
    """Their input is as large as that of a unit with all of them, so that its neurons fire."""
    config = pruned(training={"epochs": 1}, pruning={"start_epoch": 0, "end_epoch": 1, "target": 0.9})
    model = build_model(config, load_data(config.data), CPU)
    zeros = restructured(config, model)
    name, dead = max(zeros.items(), key=lambda item: item[1].sum().item())
    weight = model.get_parameter(name).detach().masked_fill(dead, 0).flatten(1)
    count = (~dead).flatten(1).sum(1)
    assert count.min() > 0 and count.max() < dead[0].numel()
    # the sum of squares of a unit's weights is the square of the gain, whatever the number of its inputs
    power = weight.square().sum(1)
    spread = 4.0**2 * (2 / count.sum()).sqrt()
    assert (power * count).sum() / count.sum() == pytest.approx(4.0**2, abs=5 * spread.item())
