"""ONNX files, run by onnxruntime on real digits, beside the network in PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.export import neurons, to_onnx
from dpap.models import NetworkConfig, build_network
from dpap.spiking import IF, PLIF, FoldTime
from dpap.surgery.timesteps import silence_timesteps
from support.small_digits import digits, small_network

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("unchecked")


def images(count: int) -> Tensor:
    return digits(count, 8)[0]


def run(path: Path, **feed: Tensor) -> list[Any]:
    """What the file returns, independently of the export's own comparison."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})


def spiking(layers: str = "6C3-BN-AvgPool2-12FC-10FC", **chosen: object) -> nn.Module:
    torch.manual_seed(0)  # networks are made when tests are collected, and must fire
    model = build_network(NetworkConfig(layers, **chosen), (1, 8, 8))  # type: ignore[arg-type]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
    return model


def test_a_compact_network_for_any_batch(tmp_path: Path) -> None:
    model = small_network()
    dense = sum(weights.numel() for weights in model.parameters())
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, min_units=1)
    pruner = dpap.Pruner(model, images(8), config=config)
    nn.functional.cross_entropy(model(images(64)), digits(64, 8)[1]).backward()
    pruner.step()
    pruner.compact()
    pruner.detach()
    assert sum(weights.numel() for weights in model.parameters()) < dense
    report = dpap.export_onnx(model, images(16), tmp_path / "small.onnx")
    assert report.comparison is not None
    assert report.comparison.spikes == 0
    assert model.training
    for count in (1, 5, 40):
        (found,) = run(report.path, input=images(count))
        np.testing.assert_allclose(found, model.eval()(images(count)).detach(), atol=1e-5)
    content = report.path.read_bytes()
    assert report.bytes == len(content)
    assert b"site-packages" not in content
    assert b"small_digits" not in content


@pytest.mark.parametrize(
    ("model", "scans"),
    [
        (spiking(timesteps=4), 0),
        (spiking(timesteps=9, neuron="plif", tau=2.7, reset="soft"), 2),
        (spiking("6C3-MaxPool2-12FC-10FC", timesteps=10, neuron="if", readout="rate"), 3),
    ],
    ids=["lif written out", "plif soft scan", "if rate scan"],
)
def test_spiking_networks_with_silenced_timesteps(model: nn.Module, scans: int, tmp_path: Path) -> None:
    silence_timesteps(model.spike1, torch.rand(model.timesteps, 6) > 0.3, 0, -3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = dpap.export_onnx(model, images(8), tmp_path / "small.onnx")
    comparison = report.comparison
    assert comparison is not None
    assert comparison.samples == 8 + 17 + 1
    assert comparison.flipped_spikes == 0
    assert comparison.spikes > 10_000
    assert comparison.largest_difference < 1e-5
    (found,) = run(report.path, input=images(3))
    expected = model.eval()(images(3)).detach()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected.abs().max() > 0
    graph = onnx.load(report.path).graph
    assert sum(node.op_type == "Scan" for node in graph.node) == scans
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "forward" not in vars(model.spike1)


def test_frames_in_a_network_of_ones_own(tmp_path: Path) -> None:
    convolution = FoldTime(nn.Conv2d(1, 5, 3, bias=False), nn.BatchNorm2d(5), nn.AvgPool2d(2))
    model = nn.Sequential(convolution, PLIF(1.6), FoldTime(nn.Flatten(), nn.Linear(45, 10)), IF())
    frames = torch.stack([images(6) * share for share in (9, 5, 7)])
    report = dpap.export_onnx(model, frames, tmp_path / "frames.onnx")
    assert report.inputs == {"input": "[3, batch, 1, 8, 8]"}
    (found,) = run(report.path, input=frames[:, :1])
    np.testing.assert_array_equal(found, model.eval()(frames[:, :1]).detach())
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("silenced", [False, True])
def test_a_timestep_with_states_in_and_out(silenced: bool, tmp_path: Path) -> None:
    steps = 5
    model = spiking(timesteps=steps, neuron="plif", tau=2.2)
    if silenced:
        silence_timesteps(model.spike_fc1, torch.rand(steps, 12) > 0.4, 0, -1)
    report = dpap.export_onnx(model, images(4), tmp_path / "step.onnx", step=True)
    assert report.comparison is not None
    assert report.comparison.flipped_spikes == 0
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    states = [each.name for each in session.get_inputs() if each.name.endswith(".membrane")]
    assert len(states) == 2
    assert ("timestep" in report.inputs) is silenced
    feed = {"input": images(2).numpy()}
    feed |= {
        each.name: np.zeros((2, *each.shape[1:]), np.float32)
        for each in session.get_inputs()
        if each.name in states
    }
    outputs = []
    for t in range(steps):
        number = {"timestep": np.array([t])} if silenced else {}
        names = [each.name for each in session.get_outputs()]
        results = dict(zip(names, session.run(names, feed | number), strict=True))
        outputs.append(results["output"])
        feed |= {name: results[f"{name}.next"] for name in states}
    expected = model.eval()(images(2)).detach()
    np.testing.assert_allclose(np.mean(outputs, 0), expected, atol=1e-5)


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 5), nn.Linear(4, 5)

        def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
            hidden = torch.tanh(self.one(left) + self.other(right) * scale)
            return {"hidden": hidden, "largest": hidden.argmax(-1)}

    example = {"right": torch.rand(6, 4), "left": torch.rand(6, 3), "scale": 0.5}
    report = dpap.export_onnx(Two(), example, tmp_path / "two.onnx")
    assert report.inputs == {"right": "[batch, 4]", "left": "[batch, 3]"}
    assert [value.name for value in onnx.load(report.path).graph.output] == ["hidden", "largest"]


def test_networks_of_snntorch_whose_own_code_exports(tmp_path: Path) -> None:
    snn = pytest.importorskip("snntorch")

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(64, 20), snn.Leaky(0.8, init_hidden=True)
            self.fc2 = nn.Linear(20, 10)

        def forward(self, x: Tensor) -> Tensor:
            self.lif1.reset_mem()
            return torch.stack([self.fc2(self.lif1(self.fc1(x.flatten(1)))) for _ in range(3)]).mean(0)

    report = dpap.export_onnx(Loop(), 3 * images(8), tmp_path / "leaky.onnx")
    assert report.comparison is not None
    assert report.comparison.spikes == 3 * 20 * (8 + 17 + 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["s", "m"])
def test_networks_of_spikingjelly_whose_own_code_exports(mode: str, tmp_path: Path) -> None:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif = nn.Linear(64, 20), neuron.LIFNode(tau=2.0, step_mode=mode)
            self.fc2, self.out = nn.Linear(20, 10), neuron.IFNode(step_mode=mode)

        def forward(self, x: Tensor) -> Tensor:
            if mode == "m":
                current = self.fc1(x.flatten(1)).expand(3, -1, -1)
                return self.out(self.fc2(self.lif(current))).mean(0)
            return torch.stack([self.out(self.fc2(self.lif(self.fc1(x.flatten(1))))) for _ in range(3)]).mean(
                0
            )

    report = dpap.export_onnx(Network(), 9 * images(8), tmp_path / "jelly.onnx")
    assert report.comparison is not None
    assert report.comparison.spikes == 3 * (20 + 10) * (8 + 17 + 1)
    assert report.comparison.flipped_spikes == 0
    assert report.comparison.fired > 0


def test_what_cannot_be_recorded_is_named(tmp_path: Path) -> None:
    class Chooses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(dpap.ExportError, match=r"torch\.export cannot record this network's forward"):
        dpap.export_onnx(Chooses(), torch.rand(4, 3), tmp_path / "no.onnx")
    assert not list(tmp_path.iterdir())


def test_what_fixes_the_number_of_samples_is_named(tmp_path: Path) -> None:
    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(len(x), -1)

    with pytest.raises(dpap.ExportError, match=r"len\(x\) .* make the number of samples a constant"):
        dpap.export_onnx(Counts(), torch.rand(4, 3, 2), tmp_path / "no.onnx")


class Batch(nn.Linear):
    """Does something with a batch besides its layer."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__(3, 2)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(super().forward(x))


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (lambda y: torch.cat([each.tanh() for each in y.split(64)]), "it treats 2 to 64"),
        (lambda y: y.tanh() if y.shape[0] > 8 else y, "it treats 9 or more"),
        (
            lambda y: y - y.mean(0) if y.shape[0] > 1 else y,
            "for 16 samples, as in the example, and not for 1",
        ),
        (lambda y: y.tanh() if y.shape[0] % 2 == 0 else y, "as in the example, and not for 33"),
    ],
    ids=["pieces", "many", "alone", "even"],
)
def test_what_holds_for_some_numbers_of_samples_only_is_refused(
    then: Callable[[Tensor], Tensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(dpap.ExportError, match=message):
        dpap.export_onnx(Batch(then), torch.rand(16, 3), tmp_path / "no.onnx")
    assert not list(tmp_path.iterdir())


class Tagger(nn.Module):
    """A class for each element of sequences [T, B, 8]."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        return self.head(found[0] if isinstance(found, tuple) else found)


@pytest.mark.parametrize(
    "body", [nn.LSTM(8, 8), nn.TransformerEncoderLayer(8, 2, 16)], ids=["lstm", "attention"]
)
def test_sequences_before_samples(body: nn.Module, tmp_path: Path) -> None:
    model = Tagger(body)
    report = dpap.export_onnx(model, torch.randn(7, 4, 8), tmp_path / "tagger.onnx")
    assert report.inputs == {"x": "[7, batch, 8]"}
    x = torch.randn(7, 9, 8)
    np.testing.assert_allclose(run(report.path, x=x)[0], model.eval()(x).detach(), atol=1e-5)


def test_networks_in_half_precision_are_written_with_its_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).half()
    report = dpap.export_onnx(model, torch.randn(16, 64).half(), tmp_path / "half.onnx")
    assert report.comparison is not None
    assert report.comparison.precision == torch.finfo(torch.float16).eps
    assert report.comparison.largest_difference > 1e-4


def test_a_file_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lower(document: Any, calls: list[neurons.Neurons]) -> None:
        neurons.write_neurons(
            document, [neurons.Neurons(**(vars(each) | {"threshold": 0.7})) for each in calls]
        )

    path = tmp_path / "wrong.onnx"
    path.write_text("an earlier file")
    monkeypatch.setattr(to_onnx, "write_neurons", lower)
    with pytest.raises(dpap.ExportError, match=r"does not compute what the network computes.*spikes flipped"):
        dpap.export_onnx(spiking(timesteps=2), images(8), path)
    assert path.read_text() == "an earlier file"
    assert list(tmp_path.iterdir()) == [path]


def test_without_onnxruntime_nothing_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_onnx, "installed", lambda name: False)
    report = dpap.export_onnx(nn.Linear(3, 2), torch.rand(4, 3), tmp_path / "linear.onnx")
    assert report.comparison is None
    assert "onnxruntime is not installed" in str(report)
