"""What is saved as plain comes back without dpap, in a process that cannot import it, bit for bit."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import dpap
import support.factories as factories
from dpap.anatomy.layers import _REGISTRY
from dpap.files import replacing
from dpap.models import NetworkConfig, build_network
from dpap.surgery.timesteps import silence_timesteps

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")

VECTORS, IMAGES = torch.rand(6, 9), torch.rand(4, 2, 8, 8)
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, Any], str]] = {
    "chain": (factories.chain, IMAGES, {}, ""),
    "gated": (
        lambda: factories.Gated(16, classes=3),
        VECTORS,
        {"build": "factories:Gated", "arguments": {"units": 16, "classes": 3}},
        "",
    ),
    "heard": (factories.Heard, VECTORS, {}, "factories.Heard"),
    "turned": (factories.turned, VECTORS.double(), {"build": "factories:turned"}, ""),
}
"""Name -> the dense network, an input, what `save` is given, and what the script's `load` is."""
ALONE = """
import sys, warnings
sys.modules["dpap"] = None
sys.path[:0] = sys.argv[1:]
from importlib import import_module
import torch, factories
warnings.simplefilter("ignore")
for name, builder in {builders!r}.items():
    model = import_module(name + "_builder").load(*([eval(builder)] if builder else []))
    x = torch.load(f"{{sys.argv[1]}}/{{name}}.in")
    assert not model.training
    torch.save((model(x).detach(), str(model)), f"{{sys.argv[1]}}/{{name}}.out")
"""


def pruned(model: nn.Module, x: Tensor) -> nn.Module:
    config = dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=1, observe_every=1, synapses=False)
    pruner = dpap.Pruner(model, x, None, config)
    model.train()
    model(x).square().sum().backward()
    pruner.step()
    pruner.compact()
    pruner.detach()
    return model.eval()


def built(path: Path) -> ModuleType:
    """The script beside a file of weights."""
    spec = spec_from_file_location("built", path.with_name(f"{path.stem}_builder.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_networks_come_back_where_dpap_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpap.anatomy.layers._REGISTRY", dict(_REGISTRY))
    turned = {
        "unit_axis": 1,
        "feature_axis": 0,
        "activity_axis": -1,
        "weight": "kernel",
        "unit_count": "width",
    }
    dpap.register_layer(factories.Turned, **turned)
    models = {}
    for name, (build, x, given, _) in CASES.items():
        torch.manual_seed(3)
        models[name] = pruned(build(), x)
        assert sum(p.numel() for p in models[name].parameters()) < sum(
            p.numel() for p in build().parameters()
        )
        dpap.save(models[name], tmp_path / f"{name}.safetensors", format="plain", **given)
        torch.save(x, tmp_path / f"{name}.in")
    builders = {name: builder for name, (*_, builder) in CASES.items()}
    folders = [str(tmp_path), str(Path(factories.__file__).parent)]
    subprocess.run([sys.executable, "-c", ALONE.format(builders=builders), *folders], check=True)
    for name, (build, x, _, _) in CASES.items():
        output, described = torch.load(tmp_path / f"{name}.out")
        assert torch.equal(output, models[name](x)), name
        assert described == str(models[name])
        assert torch.equal(dpap.load(tmp_path / f"{name}.safetensors", build()).eval()(x), output)


def test_the_weights_are_a_state_dict_and_the_widths_are_for_people(tmp_path: Path) -> None:
    model = factories.chain(6)
    nn.init.zeros_(model.head.weight)
    path = dpap.save(model, tmp_path / "a-b.c.safetensors", format="plain")
    model.load_state_dict(load_file(path), strict=True)
    widths = json.loads((tmp_path / "a_b_c_widths.json").read_text())
    assert widths["layers"]["deep.0"]["sizes"] == {"groups": 6, "in_channels": 6, "out_channels": 6}
    assert widths["layers"]["deep.0"]["settings"]["kernel_size"] == [3, 1]
    assert widths["layers"]["norm"]["tensors"]["running_var"] == [[6], "float32"]
    assert len((tmp_path / "a_b_c_builder.py").read_text().splitlines()) < 140


def test_pooling_of_ours_is_that_of_torch(tmp_path: Path) -> None:
    config = NetworkConfig("8C3-BN-AvgPool2-24FC-Dropout0.5-3FC", neuron="relu")
    model, x = build_network(config, (2, 8, 8), 3).eval(), IMAGES
    path = dpap.save(model, tmp_path / "small.safetensors", format="plain")
    fresh = built(path).load()
    assert type(fresh.pool1) is nn.AvgPool2d and list(fresh.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(fresh(x), model(x))


def _silenced() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    silence_timesteps(model[1], torch.ones(2, 4, dtype=torch.bool), 0, -1)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: build_network(NetworkConfig("4FC-3FC"), (1, 2, 2), 3),
            "does not run without dpap.*SpikingNetwork",
        ),
        (
            lambda: nn.Sequential(build_network(NetworkConfig("4FC-3FC"), (1, 2, 2), 3).spike_fc1),
            "0 is a LIF",
        ),
        (_silenced, "timesteps of 1 are silenced"),
    ],
)
def test_what_needs_dpap_is_refused(model: Callable[[], nn.Module], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        dpap.save(model(), tmp_path / "small.safetensors", format="plain")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"build": "module.callable"}, ValueError, "\"module:callable\"; got 'module.callable'"),
        ({"build": 'a:b"\nimport os'}, ValueError, "module:callable"),
        ({"arguments": {"units": 3}}, ValueError, "arguments and no build"),
        ({"build": "a:b", "arguments": {"units": {3}}}, TypeError, "plain values"),
        ({"format": "zip"}, ValueError, "must be"),
        ({"format": "dpap", "build": "a:b"}, ValueError, "are for format"),
    ],
)
def test_what_cannot_be_written_is_refused(
    given: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        dpap.save(nn.Linear(2, 2), tmp_path / "small.safetensors", **{"format": "plain", **given})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["small_builder.py", "small_widths.json"])
def test_files_of_others_are_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("my own")
    with pytest.raises(FileExistsError, match=name):
        dpap.save(nn.Linear(2, 2), tmp_path / "small.safetensors", format="plain")
    assert [file.name for file in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "my own"


def test_the_script_of_another_network_is_not_replaced(tmp_path: Path) -> None:
    path = dpap.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "net-1.safetensors", format="plain")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(
        FileExistsError, match=r"net_1_builder\.py builds the network of .*net-1\.safetensors"
    ):
        dpap.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "net_1.safetensors", format="plain")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    path.unlink()
    dpap.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "net_1.safetensors", format="plain")
    assert built(tmp_path / "net_1.safetensors").load()[0].out_features == 3


@pytest.mark.parametrize(
    ("name", "script"),
    [("98", "_98_builder"), ("a²-b", "a2_b_builder"), ("r\N{LATIN SMALL LIGATURE FI}", "rfi_builder")],
)
def test_the_script_can_be_imported(
    name: str, script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dpap.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / f"{name}.safetensors", format="plain")
    monkeypatch.syspath_prepend(tmp_path)
    found: dict[str, Any] = {}
    exec(f"from {script} import load", found)
    monkeypatch.delitem(sys.modules, script)
    assert found["load"]()[0].out_features == 3


def test_what_was_there_is_as_it_was_where_the_weights_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dpap.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "small.safetensors", format="plain")
    real = replacing

    def full(file: Path) -> Any:
        if file == path:
            raise OSError(errno.ENOSPC, "No space left", str(file))
        return real(file)

    monkeypatch.setattr("dpap.files.replacing", full)
    with pytest.raises(OSError, match="No space left"):
        dpap.save(nn.Sequential(nn.Linear(2, 4)), path, format="plain")
    assert built(path).load()[0].out_features == 3


def test_links_into_a_store_as_hubs_keep_files_in_are_followed(tmp_path: Path) -> None:
    store, names = tmp_path / "blobs", tmp_path / "snapshots"
    store.mkdir()
    names.mkdir()
    dpap.save(nn.Sequential(nn.Linear(2, 3)), tmp_path / "made/small.safetensors", format="plain")
    for number, file in enumerate((tmp_path / "made").iterdir()):
        file.rename(store / str(number))
        (names / file.name).symlink_to(Path("../blobs") / str(number))
    assert built(names / "small.safetensors").load()[0].out_features == 3


def test_files_of_ours_are_replaced_and_must_be_of_one_saving(tmp_path: Path) -> None:
    path = dpap.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "small.safetensors", format="plain")
    dpap.save(nn.Sequential(nn.Linear(2, 3)), path, format="plain")
    assert built(path).load()[0].out_features == 3
    dpap.save(nn.Sequential(nn.Linear(2, 3)), path)
    with pytest.raises(ValueError, match="were not written together"):
        built(path).load()


def test_damage_of_any_of_both_files_is_found(tmp_path: Path) -> None:
    """A setting is in no weight: a negative slope of 0.3 that reads 0.1 computes something else."""
    model = nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.3))
    path = dpap.save(model, tmp_path / "small.safetensors", format="plain")
    widths = tmp_path / "small_widths.json"
    good, weights = widths.read_bytes(), path.read_bytes()
    assert built(path).load()[1].negative_slope == 0.3
    for file, content, words in (
        (widths, good.replace(b"0.3", b"0.1"), "or were damaged since"),
        (widths, good[:-9], "small_widths.json was damaged"),
        (widths, b"\xff" + good, "small_widths.json was damaged"),
        (widths, b"[]", "or were damaged since"),
        (path, weights[:-1] + bytes([weights[-1] ^ 1]), "or were damaged since"),
    ):
        before = file.read_bytes()
        file.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            built(path).load()
        file.write_bytes(before)
    widths.write_bytes(good.replace(b"\n", b"\r\n"))  # as git may check it out
    assert built(path).load()[1].negative_slope == 0.3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.ModuleDict({"a": nn.Linear(4, 9)}), "b: expected a Conv2d, got None"),
        (lambda: nn.ModuleDict({"a": nn.Linear(4, 9), "b": nn.Conv1d(2, 3, 3)}), "b: expected a Conv2d"),
        (
            lambda: nn.ModuleDict({"a": nn.Linear(4, 9), "b": nn.Conv2d(2, 3, 3, stride=2)}),
            r"b: expected stride 1, got \(2, 2\)",
        ),
        (
            lambda: nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Conv2d(2, 3, 3)}),
            r"a\.weight: expected at least",
        ),
        (
            lambda: nn.ModuleDict({"a": nn.Linear(4, 9, bias=False), "b": nn.Conv2d(2, 3, 3)}),
            r"a\.bias: expected at least \[3\], got None",
        ),
        (
            lambda: nn.ModuleDict({"a": nn.Linear(4, 9), "b": nn.Conv2d(2, 3, 3), "c": nn.Linear(1, 1)}),
            "Missing key",
        ),
    ],
)
def test_another_network_is_refused_by_the_script(
    build: Callable[[], nn.Module], message: str, tmp_path: Path
) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Conv2d(2, 3, 3)})
    path = dpap.save(model, tmp_path / "small.safetensors", format="plain")
    with pytest.raises((ValueError, RuntimeError), match=message):
        built(path).load(build)
    with pytest.raises(TypeError, match=r"load\(build\)"):
        built(path).load()


def test_settings_of_layers_with_parts_are_compared_by_the_script(tmp_path: Path) -> None:
    def encoder(**settings: Any) -> nn.Module:
        return nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, **settings))

    model = encoder(activation="gelu").eval()
    path = dpap.save(model, tmp_path / "small.safetensors", format="plain")
    fresh, x = built(path).load(lambda: encoder(activation="gelu")), torch.rand(3, 2, 4)
    assert torch.equal(fresh(x), model(x))
    with pytest.raises(ValueError, match="0: expected activation gelu"):
        built(path).load(encoder)


def _shared() -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, nn.ReLU(), layer)


def _hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    return model


def _own_forward() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    model[1].forward = lambda x: x.relu() * 2  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    "model",
    [
        _shared,
        _hooked,
        _own_forward,
        lambda: nn.Sequential(nn.LSTM(3, 3)),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))),
        lambda: nn.Sequential(nn.Linear(3, 3), nn.TransformerEncoderLayer(3, 1)),
        lambda: factories.turned(),
    ],
)
def test_what_is_more_than_modules_in_turn_is_built_by_its_own_code(
    model: Callable[[], nn.Module], tmp_path: Path
) -> None:
    made = model()
    path = dpap.save(made, tmp_path / "small.safetensors", format="plain")
    assert json.loads((tmp_path / "small_widths.json").read_text())["in_turn"] is None
    fresh = built(path).load(model)
    for name, value in made.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


def test_compiled_networks_are_written_under_their_own_names(tmp_path: Path) -> None:
    model = factories.chain(6).eval()
    path = dpap.save(torch.compile(model, backend="eager"), tmp_path / "small.safetensors", format="plain")
    assert torch.equal(built(path).load()(IMAGES), model(IMAGES))
