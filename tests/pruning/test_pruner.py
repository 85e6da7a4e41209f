"""The life cycle on real digits: observe, step, compact, save, go on."""

import copy
import io
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import dpap
from dpap.models import NetworkConfig, build_network

SNN = NetworkConfig(layers="8C3-BN-AvgPool2-12C3-BN-AvgPool2-40FC-10FC", timesteps=4)
ANN = NetworkConfig(layers="8C3-MaxPool2-12C3-MaxPool2-40FC-10FC", neuron="relu")


@cache
def _digits() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images[:384], torch.tensor(digits.target[:384])


def _start(
    network: NetworkConfig, config: dpap.PruningConfig, seed: int = 0
) -> tuple[nn.Module, torch.optim.Optimizer, dpap.Pruner]:
    torch.manual_seed(seed)
    model = build_network(network, (1, 8, 8), 10)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    # more take long while shapes are checked
    config = replace(config, deaths_per_epoch=min(config.deaths_per_epoch, 3))
    return model, optimizer, dpap.Pruner(model, _digits()[0][:8], optimizer, config)


def _learn(model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    images, labels = _digits()
    model.train()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
    for batch in order.split(64):
        optimizer.zero_grad()
        F.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()


def _live(network: NetworkConfig, config: dpap.PruningConfig, epochs: int) -> tuple[Any, ...]:
    model, optimizer, pruner = _start(network, config)
    reports = []
    for epoch in range(epochs):
        _learn(model, optimizer, epoch)
        reports.append(pruner.step())
    return model, optimizer, pruner, reports


@pytest.mark.parametrize("network", [SNN, ANN], ids=["snn", "ann"])
@pytest.mark.parametrize("target", [0.3, 0.6, 0.9])
def test_a_target_is_met_on_real_data(network: NetworkConfig, target: float) -> None:
    model, _, pruner, reports = _live(network, dpap.PruningConfig(target=target, end_epoch=4), 5)
    assert pruner.sparsity == pytest.approx(target, abs=0.01)
    shares = [report.sparsity for report in reports]
    assert shares == sorted(shares) and shares[-1] == shares[-2]
    zero = sum(
        int((p == 0).sum()) for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1
    )
    total = sum(p.numel() for n, p in model.named_parameters() if n.endswith("weight") and p.ndim > 1)
    assert zero / total == pytest.approx(pruner.sparsity, abs=1e-9)
    model.eval()
    silent = model(_digits()[0])
    report = pruner.compact()
    assert report.parameters_after < report.parameters_before
    assert report.largest_difference <= 1e-12
    assert (model(_digits()[0]).argmax(1) == silent.argmax(1)).float().mean() > 0.99


def test_timesteps_die_too() -> None:
    config = dpap.PruningConfig(target=0.5, timestep_target=0.4, end_epoch=3, compact="auto")
    model, _, pruner, reports = _live(SNN, config, 4)
    assert pruner.timestep_sparsity == pytest.approx(0.4, abs=0.01)
    assert reports[-1].layers[0].timesteps_alive < 1
    fired: list[Tensor] = []
    neuron = model.get_submodule("spike2")
    neuron.register_forward_hook(lambda module, args, spikes: fired.append(spikes.sum((1, 3, 4))))
    for training in (True, False):
        model.train(training)
        model(_digits()[0])
    alive = neuron.timestep_alive
    assert not alive.all()
    for spikes in fired:
        assert not spikes[~alive].any() and spikes[alive].any()


def test_without_a_target_death_comes_by_the_survival_function_alone() -> None:
    constants = dpap.Decay(epsilon=1.2, eta=4.0, beta=1.0, protection=2.0)
    config = dpap.PruningConfig.paper(conv=constants, neuron=constants, synapse=constants)
    _, _, _pruner, reports = _live(ANN, config, 8)
    shares = [report.sparsity for report in reports]
    assert shares == sorted(shares) and 0.1 < shares[-1] < 0.95
    assert reports[-1].epsilon == {"conv": 1.2, "neuron": 1.2, "synapse": 1.2}
    assert reports[-1].target is None
    for layer in reports[-1].layers:
        assert layer.alive >= min(config.min_units, layer.units)


def test_the_released_criterion_waits_five_epochs_and_takes_longer_to_kill() -> None:
    config = dpap.PruningConfig.released()
    _, _, _pruner, reports = _live(SNN, config, 16)
    shares = [report.sparsity for report in reports]
    # from F = 10 a useless synapse loses at most 1.5 an epoch, as the golden masks show
    assert not any(shares[:10]) and shares == sorted(shares) and 0 < shares[-1] < 1
    assert reports[4].epsilon == {} and reports[5].epsilon["synapse"] == 1.5


def test_survival_is_given_by_the_unit_of_the_dense_network() -> None:
    config = dpap.PruningConfig(target=0.8, end_epoch=3, compact="auto")
    _, _, pruner, reports = _live(ANN, config, 3)
    survival = pruner.survival()
    assert {name: len(values) for name, values in survival.items()} == {"conv1": 8, "conv2": 12, "fc1": 40}
    for layer in reports[-1].layers:
        if layer.name in survival:
            assert sum(value is not None for value in survival[layer.name]) == layer.alive
    assert pruner.wiring.layers["fc1"].units < 40


@pytest.mark.parametrize("compact", ["auto", "manual"])
@pytest.mark.parametrize("network", [SNN, ANN], ids=["snn", "ann"])
def test_an_interrupted_run_goes_on_to_the_same_bits(network: NetworkConfig, compact: Any) -> None:
    steps = 0.3 if network.spiking else None
    config = dpap.PruningConfig(target=0.7, end_epoch=4, timestep_target=steps, compact=compact)
    whole, _, whole_pruner, reports = _live(network, config, 6)
    model, optimizer, pruner, _ = _live(network, config, 3)
    stored = io.BytesIO()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()},
        stored,
    )
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    model, optimizer, pruner = _start(network, config, seed=9)
    pruner.load_state_dict(state["pruner"])
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for epoch in range(3, 6):
        _learn(model, optimizer, epoch)
        assert pruner.step().sparsity == reports[epoch].sparsity
    assert pruner.survival() == whole_pruner.survival()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_the_same_seed_gives_the_same_bits() -> None:
    config = dpap.PruningConfig(target=0.7, end_epoch=3, compact="auto")
    first, second = (_live(SNN, config, 3)[0].state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_automatic_removal_says_what_it_did_and_training_goes_on() -> None:
    config = dpap.PruningConfig(target=0.8, end_epoch=3, compact="auto")
    model, optimizer, pruner, reports = _live(ANN, config, 3)
    done = [report.compacted for report in reports if report.compacted is not None]
    assert done and all(one.parameters_after < one.parameters_before for one in done)
    assert "compacted" in str(next(report for report in reports if report.compacted is not None))
    before = {name: value.clone() for name, value in model.named_parameters()}
    _learn(model, optimizer, 9)
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)


def test_automatic_removal_that_is_refused_warns_once_and_learning_goes_on() -> None:
    class Wide(nn.Module):
        """Runs without some of its units, as a trial shows, and from then on no more."""

        def __init__(self) -> None:
            super().__init__()
            self.fixed = False
            self.fc1, self.act, self.fc2 = nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10)

        def forward(self, images: Tensor) -> Tensor:
            hidden = self.act(self.fc1(images.flatten(1)))
            return self.fc2(hidden.view(-1, 20) if self.fixed else hidden)

    model = Wide()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    config = dpap.PruningConfig(target=0.6, end_epoch=3, compact="auto", synapses=False)
    pruner = dpap.Pruner(model, _digits()[0][:8], optimizer, config)
    model.fixed = True
    with pytest.warns(UserWarning, match="stay in the network as zeros") as warned:
        for epoch in range(4):
            _learn(model, optimizer, epoch)
            pruner.step()
    assert len(warned) == 1 and model.fc1.out_features == 20
    assert pruner.sparsity == pytest.approx(0.6, abs=0.04)


def test_a_step_without_training_is_an_error() -> None:
    model, _, pruner = _start(ANN, dpap.PruningConfig.paper())
    model.eval()
    model(_digits()[0])
    with pytest.raises(RuntimeError, match=r"no training forward .*\(model\.train\(\)\)"):
        pruner.step()


def test_a_step_without_gradients_is_an_error() -> None:
    model, _, pruner = _start(ANN, dpap.PruningConfig())
    model.train()
    model(_digits()[0])
    with pytest.raises(RuntimeError, match=r"no gradient .* give Pruner the optimizer"):
        pruner.step()


def test_deaths_come_within_an_epoch_and_are_reported_at_its_end() -> None:
    model, optimizer, pruner = _start(ANN, dpap.PruningConfig(target=0.9, end_epoch=3, deaths_per_epoch=3))
    shares: list[float] = []
    optimizer.register_step_post_hook(lambda *step: shares.append(pruner.sparsity))
    alive = []
    for epoch in range(4):
        _learn(model, optimizer, epoch)
        report = pruner.step()
        alive.append({layer.name: layer.alive for layer in report.layers})
        assert bool(report.epsilon) == (epoch in (1, 2))
        if epoch:
            died = {layer.name: layer.died for layer in report.layers}
            assert died == {name: alive[-2][name] - alive[-1][name] for name in died}
    steps = len(shares) // 4
    assert not any(shares[:steps])  # the first epoch is observed
    for epoch in (1, 2):
        within = shares[epoch * steps : (epoch + 1) * steps]
        assert within == sorted(within) and len(set(within)) == 3
    assert set(shares[-steps:]) == {pruner.sparsity} and pruner.sparsity == pytest.approx(0.9, abs=0.01)


def test_a_run_stopped_within_an_epoch_goes_on_to_the_same_bits() -> None:
    images, labels = _digits()
    config = dpap.PruningConfig(target=0.8, end_epoch=2, deaths_per_epoch=3, observe_every=1)

    def learn(model: nn.Module, optimizer: torch.optim.Optimizer, batches: range) -> None:
        model.train()
        for batch in batches:
            optimizer.zero_grad()
            part = slice(32 * batch, 32 * batch + 32)
            F.cross_entropy(model(images[part]), labels[part]).backward()
            optimizer.step()

    model, optimizer, pruner = _start(ANN, config)
    learn(model, optimizer, range(12))
    pruner.step()
    learn(model, optimizer, range(5))
    assert pruner.sparsity > 0
    saved = copy.deepcopy((pruner.state_dict(), model.state_dict(), optimizer.state_dict()))
    learn(model, optimizer, range(5, 12))
    report = pruner.step()
    resumed, resumed_optimizer, second = _start(ANN, config, seed=9)
    for each, state in zip((second, resumed, resumed_optimizer), saved, strict=True):
        each.load_state_dict(state)
    learn(resumed, resumed_optimizer, range(5, 12))
    assert second.step().sparsity == report.sparsity
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_without_an_optimizer_gradients_are_seen_and_deaths_come_once_an_epoch() -> None:
    torch.manual_seed(0)
    model = build_network(ANN, (1, 8, 8), 10).train()
    pruner = dpap.Pruner(model, _digits()[0][:8], None, dpap.PruningConfig(target=0.7, end_epoch=3))
    shares = []
    for _ in range(3):
        for images, labels in zip(*(part.split(64) for part in _digits()), strict=True):
            F.cross_entropy(model(images), labels).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
            model.zero_grad()
            shares.append(pruner.sparsity)
        pruner.step()
    assert len(set(shares)) == 3 - 1 and pruner.sparsity == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("criterion", ["taylor", "magnitude", "random_once"])
def test_criteria_that_need_no_activity_record_none(criterion: str) -> None:
    model, _, pruner = _start(SNN, dpap.PruningConfig(target=0.5, end_epoch=2, criterion=criterion))
    watched = [module for module in model.modules() if module is not model]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in watched)
    pruner.detach()


@pytest.mark.parametrize("criterion", ["taylor", "bcm"])
def test_nothing_is_observed_once_all_is_dead_that_will_be(criterion: str) -> None:
    model, optimizer, pruner, _ = _live(
        ANN, dpap.PruningConfig(target=0.5, end_epoch=2, criterion=criterion), 2
    )
    before = copy.deepcopy(pruner.state_dict()["statistics"])
    _learn(model, optimizer, 2)
    report = pruner.step()
    after = pruner.state_dict()["statistics"]
    for name, kept in before.items():
        assert kept["batches"] == after[name]["batches"]
    assert report.sparsity == pytest.approx(0.5, abs=0.01)


def test_joined_units_die_together_and_leave() -> None:
    network = NetworkConfig(layers="resnet8", neuron="relu", width=0.5)
    _, _, pruner, _ = _live(network, dpap.PruningConfig(target=0.7, target_of="macs", end_epoch=3), 3)
    survival = pruner.survival()
    alive = {name: [value is not None for value in values] for name, values in survival.items()}
    for stage, first in (("layer1", "conv1"), ("layer2", "layer2.0.downsample.0")):
        assert alive[f"{stage}.0.conv2"] == alive[first]
    assert not all(alive["layer1.0.conv1"])
    pruner.compact()
    for name, layer in pruner.wiring.layers.items():
        if name in alive:
            assert layer.units == sum(alive[name]), "no dead unit stays"


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_a_layer_of_no_use_goes_first_over_the_network_and_not_within_layers(scope: Any) -> None:
    """A layer whose units reach the output through weights near zero contributes next to nothing."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.useful, self.useless = nn.Linear(64, 24), nn.Linear(64, 24)
            self.act, self.head = nn.ReLU(), nn.Linear(48, 10)
            with torch.no_grad():
                self.head.weight[:, 24:] *= 1e-4

        def forward(self, images: Tensor) -> Tensor:
            x = images.flatten(1)
            return self.head(self.act(torch.cat([self.useful(x), self.useless(x)], 1)))

    torch.manual_seed(0)
    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    config = dpap.PruningConfig(
        target=0.4, end_epoch=2, scope=scope, synapses=False, min_share=0.0, target_of="parameters"
    )
    pruner = dpap.Pruner(model, _digits()[0][:8], optimizer, config)
    for epoch in range(2):
        _learn(model, optimizer, epoch)
        report = pruner.step()
    alive = {layer.name: layer.alive for layer in report.layers}
    if scope == "network":
        assert alive["useful"] >= 22 and alive["useless"] < 8
    else:
        assert abs(alive["useful"] - alive["useless"]) <= 1


def test_the_state_of_another_network_is_refused() -> None:
    _, _, pruner = _start(ANN, dpap.PruningConfig())
    other = _start(NetworkConfig(layers="4C3-MaxPool2-40FC-10FC", neuron="relu"), dpap.PruningConfig())[2]
    with pytest.raises(ValueError, match="this network has"):
        other.load_state_dict(pruner.state_dict())


def test_the_state_of_a_larger_network_is_refused_by_a_smaller_one() -> None:
    config = dpap.PruningConfig(target=0.8, end_epoch=2)
    _, _, pruner, _ = _live(ANN, config, 2)
    dense = _start(ANN, config)[2].state_dict()
    pruner.compact()
    with pytest.raises(ValueError, match="freshly built network"):
        pruner.load_state_dict(dense)


def test_networks_with_nothing_to_prune_are_refused_with_their_wiring() -> None:
    with pytest.raises(ValueError, match=r"nothing in this network can be pruned:\nlayer"):
        dpap.Pruner(nn.Sequential(nn.Linear(3, 2)), torch.rand(2, 3))


def test_detached_the_network_carries_no_hook() -> None:
    model, optimizer, pruner = _start(SNN, dpap.PruningConfig())
    pruner.detach()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not optimizer._optimizer_step_post_hooks and not optimizer._optimizer_step_pre_hooks


def test_observation_leaves_outputs_and_gradients_alone() -> None:
    model = build_network(SNN, (1, 8, 8), 10)
    watched = copy.deepcopy(model)
    dpap.Pruner(watched, _digits()[0][:8])
    outputs = []
    for network in (model, watched):
        output = network(_digits()[0][:16])
        output.sum().backward()
        outputs.append(output)
    assert torch.equal(*outputs)
    for one, other in zip(model.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averages_of_the_weights_follow_and_are_resumed(use_buffers: bool) -> None:
    config = dpap.PruningConfig(target=0.7, end_epoch=3, timestep_target=0.3, deaths_per_epoch=3)

    def start() -> tuple[Any, ...]:
        torch.manual_seed(0)
        model = build_network(SNN, (1, 8, 8), 10)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        return model, average, optimizer, dpap.Pruner(model, _digits()[0][:8], optimizer, config, average)

    model, average, optimizer, pruner = start()
    removals = 0
    for epoch in range(4):
        _learn(model, optimizer, epoch)
        average.update_parameters(model)
        pruner.step()
        report = pruner.compact()
        removals += report.parameters_after < report.parameters_before
    assert removals >= 2
    own, followed = model.state_dict(), average.module.state_dict()
    assert {name: value.shape for name, value in own.items()} == {
        name: value.shape for name, value in followed.items()
    }
    assert torch.equal(own["spike2.timestep_alive"], followed["spike2.timestep_alive"])
    assert not own["spike2.timestep_alive"].all()
    average.update_parameters(model)
    images = _digits()[0]
    average.eval(), model.eval()
    assert (average(images).argmax(1) == model(images).argmax(1)).float().mean() > 0.5
    fresh_model, fresh_average, _, fresh_pruner = start()
    fresh_pruner.load_state_dict(pruner.state_dict())
    fresh_model.load_state_dict(model.state_dict())
    fresh_average.load_state_dict(average.state_dict())
    assert torch.equal(fresh_average.eval()(images), average(images))


@pytest.mark.filterwarnings("ignore")  # the compiler's own, of what it traces
@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, partial(torch.compile, backend="eager")], ids=["parallel", "compile"]
)
def test_wrapped_networks_learn_and_shrink_as_bare_ones(wrap: Any, unchecked: None) -> None:
    config = dpap.PruningConfig(
        target=0.7, end_epoch=3, timestep_target=0.3, compact="auto", deaths_per_epoch=2
    )
    network = NetworkConfig(layers="6C3-BN-AvgPool2-16FC-10FC", timesteps=3)
    bare, _, bare_pruner, _ = _live(network, config, 3)
    torch.manual_seed(0)
    inner = build_network(network, (1, 8, 8), 10)
    model = wrap(inner)
    # compiled before anybody looks on
    model.eval()(_digits()[0][:64])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    pruner = dpap.Pruner(model, _digits()[0][:8], optimizer, config)
    for epoch in range(3):
        _learn(model, optimizer, epoch)
        pruner.step()
    assert pruner.model is inner and pruner.survival() == bare_pruner.survival()
    for name, value in bare.state_dict().items():
        assert torch.equal(value, inner.state_dict()[name]), name
    assert torch.equal(model.eval()(_digits()[0]), inner(_digits()[0]))
