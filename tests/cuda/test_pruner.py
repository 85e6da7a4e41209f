"""The life cycle of a pruned network on a GPU."""

import copy
import io
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import dpap
from dpap.experiment.machine import repeatable
from dpap.models import NetworkConfig, build_network
from dpap.plasticity import CRITERIA

SNN = NetworkConfig(layers="8C3-BN-AvgPool2-12C3-BN-AvgPool2-40FC-10FC", timesteps=4)
ANN = NetworkConfig(layers="8C3-MaxPool2-12C3-MaxPool2-40FC-10FC", neuron="relu")
NETWORKS = pytest.mark.parametrize("network", [SNN, ANN], ids=["snn", "ann"])
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def deterministic() -> Any:
    with repeatable(None):
        yield


def digits(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    loaded = load_digits()
    images = torch.tensor(loaded.images[:256], dtype=dtype).unsqueeze(1) / 16
    return images.to(device), torch.tensor(loaded.target[:256]).to(device)


class Run:
    """A network, its optimizer and its pruner, on a device."""

    def __init__(
        self, network: NetworkConfig, config: dpap.PruningConfig, device=CUDA, dtype=torch.float32
    ) -> None:
        torch.manual_seed(0)
        self.images, self.labels = digits(device, dtype)
        self.model = build_network(network, (1, 8, 8), 10).to(device, dtype)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 2e-3)
        self.pruner = dpap.Pruner(self.model, self.images[:8], self.optimizer, config)
        self.reports: list[dpap.PruneReport] = []

    def learn(self, epochs: int, autocast: torch.dtype | None = None, scaler: Any = None) -> "Run":
        """So many epochs, each with the pruner's step."""
        for _ in range(epochs):
            self.model.train()
            order = torch.randperm(256, generator=torch.Generator().manual_seed(self.pruner.epoch))
            for batch in order.to(self.images.device).split(64):
                self.optimizer.zero_grad()
                with torch.autocast("cuda", autocast or torch.bfloat16, enabled=autocast is not None):
                    loss = F.cross_entropy(
                        self.model(self.images[batch]).to(self.images.dtype), self.labels[batch]
                    )
                if scaler is None:
                    loss.backward()
                    self.optimizer.step()
                else:
                    scaler.scale(loss).backward()
                    scaler.step(self.optimizer)
                    scaler.update()
            self.reports.append(self.pruner.step())
        return self

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}


def dead_weights(run: Run) -> tuple[int, int]:
    """How many prunable weights are zero, and of how many."""
    found = [p for n, p in run.model.named_parameters() if n.endswith("weight") and p.ndim > 1]
    return sum(int((p == 0).sum()) for p in found), sum(p.numel() for p in found)


@NETWORKS
def test_the_wiring_is_that_of_the_cpu(network) -> None:
    config = dpap.PruningConfig()
    wirings = [Run(network, config, device).pruner.wiring for device in (CUDA, torch.device("cpu"))]
    assert str(wirings[0]) == str(wirings[1])
    for one, other in zip(*(w.readers() for w in wirings), strict=True):
        assert list(one.feeds) == list(other.feeds)
        assert all(
            torch.equal(torch.as_tensor(one.feeds[k]).cpu(), torch.as_tensor(other.feeds[k]))
            for k in one.feeds
        )


@NETWORKS
def test_a_target_is_met_and_the_dead_are_exactly_zero_and_removed(network) -> None:
    run = Run(network, dpap.PruningConfig(target=0.6, end_epoch=2)).learn(3)
    assert run.pruner.sparsity == pytest.approx(0.6, abs=0.01)
    zeros, weights = dead_weights(run)
    assert zeros / weights == pytest.approx(run.pruner.sparsity, abs=1e-9)
    run.model.eval()
    silent = run.model(run.images)
    report = run.pruner.compact()
    assert report.parameters_after < report.parameters_before and report.largest_difference <= 1e-9
    torch.testing.assert_close(run.model(run.images), silent, rtol=1e-4, atol=1e-4)
    for parameter in run.model.parameters():
        assert parameter.is_cuda
        assert all(
            v.shape == parameter.shape for k, v in run.optimizer.state[parameter].items() if k != "step"
        )
    before = run.state()
    run.learn(1)
    assert not any(torch.equal(before[n], p) for n, p in run.model.named_parameters())


@NETWORKS
def test_what_is_silent_learns_like_what_is_removed(network) -> None:
    config = dpap.PruningConfig(target=0.5, end_epoch=1, start_epoch=0, synapses=False)
    silent = Run(network, config, dtype=torch.float64).learn(1)
    removed = Run(network, config, dtype=torch.float64).learn(1)
    removed.pruner.compact()
    for run in (silent, removed):
        run.learn(1)
    outputs = [run.model.eval()(run.images) for run in (silent, removed)]
    torch.testing.assert_close(*outputs, rtol=1e-6, atol=1e-6)


def test_dead_units_emit_exactly_nothing() -> None:
    config = dpap.PruningConfig(target=0.6, end_epoch=2, timestep_target=0.3, synapses=False)
    run = Run(SNN, config).learn(3)
    fired: dict[str, Tensor] = {}
    for name, layer in (("spike1", "conv1"), ("spike2", "conv2"), ("spike_fc1", "fc1")):
        if name in dict(run.model.named_modules()):
            hook = run.model.get_submodule(name).register_forward_hook
            hook(lambda module, args, spikes, layer=layer: fired.update({layer: spikes.sum((0, 1))}))
    run.model.train()(run.images)
    checked = 0
    for layer, spikes in fired.items():
        dead = torch.tensor([value is None for value in run.pruner.survival()[layer]], device="cuda")
        assert not spikes.flatten(1).sum(1)[dead].any() if spikes.ndim > 1 else not spikes[dead].any()
        checked += int(dead.sum())
    assert checked > 0


@NETWORKS
@pytest.mark.parametrize("compact", ["auto", "manual"])
def test_an_interrupted_run_goes_on_to_the_same_bits(network, compact) -> None:
    config = dpap.PruningConfig(target=0.7, end_epoch=3, compact=compact)
    whole = Run(network, config).learn(4)
    part = Run(network, config).learn(2)
    stored = io.BytesIO()
    parts = {"model": part.model, "optimizer": part.optimizer, "pruner": part.pruner}
    torch.save({name: each.state_dict() for name, each in parts.items()}, stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True, map_location="cpu")
    resumed = Run(network, config)
    resumed.pruner.load_state_dict(state["pruner"])
    resumed.model.load_state_dict(state["model"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.learn(2)
    assert resumed.pruner.survival() == whole.pruner.survival()
    for name, value in whole.state().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


@NETWORKS
def test_the_same_seed_gives_the_same_bits(network) -> None:
    config = dpap.PruningConfig(target=0.7, end_epoch=2, compact="auto")
    first, second = (Run(network, config).learn(3).state() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_save_and_load(tmp_path) -> None:
    run = Run(SNN, dpap.PruningConfig(target=0.7, end_epoch=2, timestep_target=0.3)).learn(2)
    run.pruner.compact()
    run.pruner.detach()
    path = dpap.save(run.model, tmp_path / "small.safetensors")
    for device in ("cuda", "cpu"):
        loaded = dpap.load(path, build_network(SNN, (1, 8, 8), 10).to(device))
        assert all(p.device.type == device for p in loaded.parameters())
        expected = run.model.eval()(run.images)
        result = loaded.eval()(run.images.to(device)).to("cuda")
        assert (result.argmax(1) == expected.argmax(1)).float().mean() >= 0.99
        if device == "cuda":
            assert torch.equal(result, expected)


@NETWORKS
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision(network, precision) -> None:
    run = Run(network, dpap.PruningConfig(target=0.6, end_epoch=2, compact="auto"))
    scaler = torch.amp.GradScaler("cuda") if precision == torch.float16 else None
    run.learn(3, precision, scaler)
    assert run.pruner.sparsity == pytest.approx(0.6, abs=0.01)
    assert all(value.isfinite().all() for value in run.state().values())


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_the_masks_are_those_of_the_cpu_in_double_precision(criterion) -> None:
    config = dpap.PruningConfig(target=0.6, end_epoch=3, criterion=criterion, start_epoch=0)
    runs = [Run(SNN, config, device, torch.float64).learn(3) for device in (CUDA, torch.device("cpu"))]
    states = [run.pruner.state_dict()["masks"] for run in runs]
    for kind in states[0]:
        for name, mask in states[0][kind].items():
            assert torch.equal(mask.cpu(), states[1][kind][name].cpu()), (kind, name)


@NETWORKS
def test_torch_compile_of_a_pruned_network(network) -> None:
    run = Run(network, dpap.PruningConfig(target=0.6, end_epoch=1, start_epoch=0)).learn(1)
    run.pruner.compact()
    run.pruner.detach()
    plain = copy.deepcopy(run.model)
    with torch.no_grad():
        expected = plain.eval()(run.images)
        result = torch.compile(run.model.eval())(run.images)
    close = (result - expected).abs().amax(1) < 1e-3
    assert close.float().mean() > 0.98  # a spike at the threshold may fall otherwise


@NETWORKS
def test_a_cuda_graph_of_a_compact_network(network) -> None:
    run = Run(network, dpap.PruningConfig(target=0.6, end_epoch=1, start_epoch=0)).learn(1)
    run.pruner.compact()
    run.pruner.detach()
    model, images, labels = run.model.train(), run.images, run.labels

    def step() -> Tensor:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model.zero_grad()
            expected = step()
    torch.cuda.current_stream().wait_stream(stream)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    graph.replay()
    torch.testing.assert_close(loss, expected)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_a_step_that_is_not_observed_never_waits_for_the_device() -> None:
    """A step with hooks of a pruner and masks, in a presentation that is not recorded."""
    run = Run(SNN, dpap.PruningConfig(target=0.6, end_epoch=1, start_epoch=0, observe_every=10**6)).learn(1)
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    run.model.train()(run.images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.optimizer.zero_grad()
        F.cross_entropy(run.model(run.images), run.labels).backward()
        run.optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def test_observing_does_not_wait_for_the_device() -> None:
    run = Run(SNN, dpap.PruningConfig(target=0.6, end_epoch=2, observe_every=1)).learn(1)
    run.model.train()(run.images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.model(run.images).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_example_inputs_on_another_device_are_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2)).cuda()
    with pytest.raises(ValueError, match="example_inputs are on cpu"):
        dpap.Pruner(model, torch.rand(4, 8))
