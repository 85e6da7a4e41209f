"""A folder for a model hub: whole or not at all, nothing in its card that was not given, and its code runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import dpap
from dpap.export import ExportError, export_hub
from dpap.export.plain_check import compare_plain
from dpap.models import NetworkConfig, build_network

LICENCE = {"name": "Tiny", "licence": "mit", "licence_text": "MIT License\n\nCopyright"}
FILES = ["LICENSE", "README.md", "model.safetensors", "model_builder.py", "model_widths.json"]


def network(width: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)).eval()


def metadata(card: str) -> dict:
    found: dict = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_card_holds_what_was_given_and_no_more(tmp_path: Path) -> None:
    measured = {"accuracy": ("97.1%", "96.9%"), "latency | one": (None, "2 ms")}
    folder = export_hub(
        network(), tmp_path / "hub", measured=measured, conditions="n = 1.", inputs="Normalised images.",
        tags=["a: b", "spiking"],
        datasets=["mnist"], metrics=["accuracy"], **LICENCE,
    )  # fmt: skip
    assert sorted(file.name for file in folder.iterdir()) == FILES
    card = (folder / "README.md").read_text()
    assert metadata(card) == {
        "license": "mit", "library_name": "pytorch", "tags": ["pruning", "dpap", "a: b", "spiking"],
        "datasets": ["mnist"], "metrics": ["accuracy"],
    }  # fmt: skip
    assert (
        "| accuracy | 97.1% | 96.9% |" in card
        and r"| latency \| one | - | 2 ms |" in card
        and "n = 1." in card
    )
    assert "## What it takes\n\nNormalised images.\n" in card
    assert (folder / "LICENSE").read_text() == "MIT License\n\nCopyright\n"
    bare = export_hub(network(), tmp_path / "bare", **LICENCE)
    card = (bare / "README.md").read_text()
    assert (
        "Measured" not in card
        and "What it takes" not in card
        and metadata(card).keys() == {"license", "library_name", "tags"}
    )


@pytest.mark.parametrize("missing", ["name", "licence", "licence_text"])
def test_there_is_no_licence_by_default(missing: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{missing} must be given"):
        export_hub(network(), tmp_path / "hub", **{**LICENCE, missing: " "})
    assert not list(tmp_path.iterdir())


def test_the_code_of_the_card_runs_with_and_without_dpap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_the_hub.py").write_text(
        "from torch import nn\n\n\ndef made(width):\n"
        "    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))\n"
    )
    model, x = network(3), torch.rand(5, 4)
    folder = export_hub(
        model, tmp_path / "hub", build="mine_of_the_hub:made", arguments={"width": 9}, **LICENCE
    )
    without, with_dpap = re.findall(r"(?ms)^```python\n(.*?)^```$", (folder / "README.md").read_text())
    assert "dpap" not in without and "dpap.load" in with_dpap
    torch.save(x, folder / "x.pt")
    alone = f"import sys\nsys.modules['dpap'] = None\nsys.path[:0] = ['.', '..']\n{without}"
    ending = "\nimport torch\ntorch.save(model(torch.load('x.pt')).detach(), 'y.pt')"
    subprocess.run([sys.executable, "-c", alone + ending], check=True, cwd=folder)
    assert torch.equal(torch.load(folder / "y.pt"), model(x))
    names: dict = {}
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(tmp_path)
    exec(with_dpap, names)
    assert torch.equal(names["model"](x), model(x))


def test_spiking_networks_are_written_for_dpap_and_the_card_says_so(tmp_path: Path) -> None:
    config = NetworkConfig("4FC-3FC", timesteps=2)
    model = build_network(config, (1, 2, 2), 3).eval()
    dense = (
        "from dpap.models import NetworkConfig, build_network\n\n\n"
        f"def build():\n    return build_network({config!r}, (1, 2, 2), 3)\n"
    )
    folder = export_hub(model, tmp_path / "hub", dense=dense, **LICENCE)
    assert sorted(file.name for file in folder.iterdir()) == FILES[:3]
    card = (folder / "README.md").read_text()
    assert (
        "It needs dpap: the network is a SpikingNetwork" in card and metadata(card)["library_name"] == "dpap"
    )
    (code,) = re.findall(r"(?ms)^```python\n(.*?)^```$", card)
    names: dict = {}
    exec(code.replace('"model.safetensors"', repr(str(folder / "model.safetensors"))), names)
    x = torch.rand(2, 1, 2, 2)
    assert torch.equal(names["model"](x), model(x))


def test_a_folder_is_replaced_only_where_all_of_it_is_an_export_and_one_asks(tmp_path: Path) -> None:
    folder = export_hub(network(6), tmp_path / "hub", **LICENCE)
    with pytest.raises(FileExistsError, match=r"hub holds LICENSE, README\.md"):
        export_hub(network(5), folder, **LICENCE)
    export_hub(network(5), folder, overwrite=True, **LICENCE)
    assert json.loads((folder / "model_widths.json").read_text())["layers"]["0"]["sizes"]["out_features"] == 5
    (folder / ".git").mkdir()
    with pytest.raises(FileExistsError, match=r"hub holds \.git, which is of no earlier export"):
        export_hub(network(4), folder, overwrite=True, **LICENCE)
    with pytest.raises(FileExistsError, match="is no folder"):
        export_hub(network(4), folder / "LICENSE", overwrite=True, **LICENCE)
    assert [each.name for each in tmp_path.iterdir()] == ["hub"] and (folder / ".git").is_dir()
    (tmp_path / "empty").mkdir()
    assert (
        sorted(each.name for each in export_hub(network(), tmp_path / "empty", **LICENCE).iterdir()) == FILES
    )


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_interrupted_leaves_what_was_there(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if overwrite:
        export_hub(network(), tmp_path / "hub", **LICENCE)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpap.export.hub.write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_hub(network(3), tmp_path / "hub", overwrite=overwrite, **LICENCE)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == before


def test_a_script_that_builds_something_else_is_noticed(tmp_path: Path) -> None:
    model, x = network(), torch.rand(5, 4)
    path = dpap.save(model, tmp_path / "small.safetensors", format="plain")
    assert compare_plain(path, model, x).largest_difference == 0
    with torch.no_grad():
        model[0].weight.mul_(2)
    with pytest.raises(ExportError, match="does not compute what the network computes"):
        compare_plain(path, model, x)
