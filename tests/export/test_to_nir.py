"""NIR files of spiking networks: what is in them, that they are compared, and what is refused."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.export import to_nir
from dpap.models import NetworkConfig, build_network
from dpap.spiking import IF, LIF, FoldTime
from dpap.surgery.timesteps import silence_timesteps
from support.small_digits import digits

nir = pytest.importorskip("nir")
pytestmark = pytest.mark.usefixtures("unchecked")
STEPS = 4


def images(count: int = 6) -> Tensor:
    return digits(count, 8)[0]


def network(layers: str = "5C3-BN-AvgPool2-9FC-BN-10FC", **chosen: object) -> nn.Module:
    model = build_network(NetworkConfig(layers, timesteps=STEPS, **chosen), (1, 8, 8))  # type: ignore[arg-type]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
                module.bias.uniform_(-0.2, 0.2)
    return model


def kinds(path: Path) -> Counter[str]:
    return Counter(type(node).__name__ for node in nir.read(path).nodes.values())


@pytest.mark.parametrize(
    "chosen",
    [{}, {"neuron": "plif", "tau": 2.9}, {"neuron": "if", "readout": "rate"}],
    ids=["lif", "plif", "if, spikes out"],
)
def test_layers_with_batch_norm_folded(chosen: dict, tmp_path: Path) -> None:
    model = network(**chosen)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = dpap.export_nir(model, images(), tmp_path / "small.nir")
    assert report.comparison is not None
    assert report.comparison.flipped_spikes == 0
    assert report.comparison.spikes >= STEPS * 6 * (5 * 64 + 9)
    assert report.comparison.largest_difference < 1e-5
    neuron = "IF" if chosen.get("neuron") == "if" else "LIF"
    assert kinds(report.path) == Counter(
        {"Input": 1, "Conv2d": 1, "AvgPool2d": 1, "Flatten": 1, "Affine": 2, "Output": 1}
        | {neuron: 3 if "readout" in chosen else 2}
    )
    graph = nir.read(report.path)
    assert graph.nodes["flatten"].start_dim < 0
    if neuron == "LIF":
        assert graph.nodes["spike1"].tau.max() / 1e-4 == pytest.approx(chosen.get("tau", 2.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_frames_and_names_with_dots(tmp_path: Path) -> None:
    model = nn.Sequential(
        FoldTime(nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False), nn.Dropout(0.5)),
        LIF(1.5, threshold=0.6),
        FoldTime(nn.Flatten(), nn.Linear(64, 10)),
        IF(),
    )
    frames = torch.stack([3 * images(), images()])
    report = dpap.export_nir(model, frames, tmp_path / "own.nir")
    assert report.comparison is not None
    assert report.comparison.spikes == 2 * 6 * (64 + 10)
    assert set(nir.read(report.path).nodes) == {"input", "0_0", "1", "2_0", "2_1", "3", "output"}


def test_residual_sums(tmp_path: Path) -> None:
    model = network("resnet20", width=0.125)
    report = dpap.export_nir(model, images(2), tmp_path / "residual.nir")
    assert report.comparison is not None
    assert report.comparison.flipped_spikes == 0
    graph = nir.read(report.path)
    sums = Counter(reader for _, reader in graph.edges)
    assert max(sums.values()) > 1
    assert kinds(report.path)["Conv2d"] == 21  # 19 and two shortcuts, no norm of its own


def test_a_norm_behind_a_sum_is_a_layer(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 1)
            self.norm, self.spike = nn.BatchNorm2d(3), LIF()

        def forward(self, frames: Tensor) -> Tensor:
            x = frames.flatten(0, 1)
            x = self.norm(self.one(x) + self.other(x))
            return self.spike(x.unflatten(0, frames.shape[:2]))

    report = dpap.export_nir(Sum(), 4 * images().expand(STEPS, -1, -1, -1, -1), tmp_path / "sum.nir")
    assert report.comparison is not None
    assert report.comparison.largest_output == 1
    assert kinds(report.path)["Conv2d"] == 3


def test_groups_and_one_dimension(tmp_path: Path) -> None:
    grouped = [nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(2)]
    model = nn.Sequential(FoldTime(*grouped, nn.Conv1d(6, 3, 2, stride=2)), LIF())

    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                FoldTime(*grouped[:3]), LIF(), FoldTime(nn.Flatten(), nn.Linear(24, 5)), IF()
            )

        def forward(self, frames: Tensor) -> Tensor:
            return self.body(frames)

    report = dpap.export_nir(Sized(), 9 * images().expand(STEPS, -1, -1, -1, -1), tmp_path / "groups.nir")
    assert report.comparison is not None
    assert report.comparison.largest_output == 1
    assert report.comparison.flipped_spikes == 0
    line = nn.Sequential(FoldTime(nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4)), LIF())
    report = dpap.export_nir(line, 9 * torch.rand(STEPS, 5, 3, 8), tmp_path / "line.nir")
    assert report.comparison is not None
    assert report.comparison.flipped_spikes == 0
    with pytest.raises(dpap.ExportError, match=r"flattens \(6, 2, 2\)"):
        dpap.export_nir(model, images().expand(STEPS, -1, -1, -1, -1), tmp_path / "no.nir")


@pytest.mark.parametrize("sum_pooling", [False, True])
def test_pooled_spikes_stay_spikes(sum_pooling: bool, tmp_path: Path) -> None:
    model = network("5C3-MaxPool2-9FC-10FC")
    report = dpap.export_nir(
        model, images(), tmp_path / "pooled.nir", pool_spikes=True, sum_pooling=sum_pooling
    )
    assert report.comparison is not None
    assert report.comparison.flipped_spikes == 0
    found = kinds(report.path)
    assert (found["IF"], found["SumPool2d"], found["AvgPool2d"]) == (1, sum_pooling, not sum_pooling)


def test_sums_in_the_place_of_means(tmp_path: Path) -> None:
    report = dpap.export_nir(network(), images(), tmp_path / "sums.nir", sum_pooling=True)
    assert report.comparison is not None
    assert report.comparison.flipped_spikes == 0
    assert kinds(report.path)["SumPool2d"] == 1


def _silenced() -> nn.Module:
    model = network()
    silence_timesteps(model.spike1, torch.rand(STEPS, 5) > 0.3, 0, -3)
    return model


def _folded(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(FoldTime(*layers), LIF())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: network(reset="soft"), r"spike1 \(LIF\): its reset is soft"),
        (_silenced, "timesteps that are silenced, those of spike1"),
        (lambda: network("5C3-MaxPool2-10FC"), "pool_spikes=True"),
        (_folded(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), "values that are no spikes"),
        (_folded(nn.Conv2d(1, 2, 3), nn.ReLU()), r"torch's relu in 0\.1 \(ReLU\)"),
        (_folded(nn.Conv2d(1, 2, 3, padding_mode="circular")), "padding_mode 'circular'"),
        (_folded(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode"),
        (_folded(nn.ConvTranspose2d(1, 2, 3)), "conv_transpose2d"),
        (_folded(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)), "own statistics"),
        (lambda: network(neuron="relu"), "ran no spiking neurons"),
    ],
)
def test_what_nir_has_no_node_for_is_named(
    make: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    model = make()
    example = images()
    if isinstance(model[0], FoldTime):
        example = example.expand(STEPS, -1, -1, -1, -1)
    with pytest.raises(dpap.ExportError, match=message):
        dpap.export_nir(model, example, tmp_path / "no.nir")
    assert not list(tmp_path.iterdir())


def test_a_mean_over_neurons_is_no_readout(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.spike = nn.Linear(4, 6), LIF()

        def forward(self, frames: Tensor) -> Tensor:
            return self.spike(self.fc(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])).mean(-1)

    with pytest.raises(dpap.ExportError, match="over more than time"):
        dpap.export_nir(Mean(), torch.rand(3, 2, 4), tmp_path / "no.nir")


def test_a_file_that_computes_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wrong.nir"
    path.write_text("an earlier file")
    monkeypatch.setattr(to_nir, "DT", 2e-4)
    with pytest.raises(dpap.ExportError, match=r"does not compute what the network computes.*flipped"):
        dpap.export_nir(network(), images(), path)
    assert path.read_text() == "an earlier file"
    assert list(tmp_path.iterdir()) == [path]
