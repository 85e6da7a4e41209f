import errno
import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dpap.cli import main
from dpap.experiment.config import load_config, overridden
from support.runs import same_bits

QUICK = [
    "--data.train_limit=160",
    "--data.test_limit=40",
    "--network.layers=4C3-AvgPool2-12FC-10FC",
    "--network.timesteps=2",
    "--pruning.target=0.5",
    "--pruning.end_epoch=2",
    "--pruning.observe_every=1",
    "--training.epochs=2",
    "--training.threads=1",
]

HEAVY = {
    "jinja2", "matplotlib", "rich", "scipy", "sklearn", "onnx", "onnxruntime", "onnxscript", "nir",
    "dpap.baselines", "dpap.data", "dpap.experiment.config", "dpap.metrics", "dpap.models", "dpap.report",
}  # fmt: skip
UNNEEDED = {
    "": HEAVY | {"torch", "jsonargparse", "yaml", "dpap.cli", "dpap.experiment"},
    "--version": HEAVY | {"torch", "dpap.cli.data", "dpap.cli.train"},
    "--help": HEAVY | {"torch", "dpap.cli.data", "dpap.cli.train"},
    "trian": HEAVY | {"torch", "dpap.cli.data", "dpap.cli.train"},
    "recipes": HEAVY | {"torch", "dpap.cli.data", "dpap.cli.train"},
    "data": HEAVY - {"dpap.data"},
    "report nowhere": {"scipy", "sklearn", "dpap.experiment.comparing.compare", "dpap.experiment.train"},
}
"""Modules that `import dpap` and the light commands do without; a later one may have what an earlier one may not."""


def test_a_run_and_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--out", str(run)]) == 0
    said = capsys.readouterr()
    assert "epoch 2/2" in said.out
    assert "pruned" in said.out
    assert said.err == ""
    assert "\x1b" not in said.out
    assert json.loads((run / "run.json").read_text())["command"].startswith(
        "dpap train --data.train_limit=160"
    )
    assert main(["report", str(run)]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert main(["train", "--resume", str(run), "--quiet"]) == 0
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(again), "--quiet"]) == 0
    scores = [json.loads((each / "summary.json").read_text())["final_test_accuracy"] for each in (run, again)]
    assert scores[0] == scores[1]


def test_methods_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "all"
    command = ["compare", *QUICK, "--seeds=[0, 1]", "--targets=[0.3]", "--out", str(out), "--quiet"]
    assert main([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("to do") == 4
    assert not out.exists()
    assert main(command) == 0
    said = capsys.readouterr().out
    for part in ("| dense", "| dpap", "Protocol validation", "results.csv", "n seeds"):
        assert part in said
    assert len((out / "results.csv").read_text().splitlines()) == 5
    assert (out / "comparison.md").read_text() in said
    page = Path(said.partition("figures: ")[2].strip())
    assert page.is_file()
    page.unlink()
    assert main(["report", str(out)]) == 0
    assert page.is_file()
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    assert "4 of 4 runs are finished" in capsys.readouterr().out
    assert main([*command, "--protocol", "last"]) == 2
    assert "another configuration" in capsys.readouterr().err


def test_a_grid_is_compared_and_flags_reach_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text("name: small\ntraining: {epochs: 9}\n")
    grid = tmp_path / "table.yaml"
    grid.write_text(
        "- {recipe: small.yaml, methods: [dpap]}\n"
        "- {recipe: small.yaml, name: baseline, methods: [gradual_magnitude]}\n"
        "- {recipe: small.yaml, name: nowhere, methods: [dense], set: {training: {device: 'cuda:99'}}}\n"
    )
    out = tmp_path / "out"
    flags = [*QUICK, "--protocol=last", "--seeds=[0]", "--out", str(out), "--quiet"]
    assert main(["compare", "--grid", str(grid), *flags]) == 2
    said = capsys.readouterr()
    assert "1 of 5 runs failed" in said.err
    assert "nowhere: dense, seed 0 failed" in said.out
    assert "| gradual_magnitude" in said.out
    assert "Protocol last" in said.out
    assert json.loads((out / "small" / "dpap-0.5-seed0" / "summary.json").read_text())["epochs"] == 2
    assert main(["compare", "--grid", str(grid), "--config", str(tmp_path / "small.yaml")]) == 2
    assert "--grid names its recipes" in capsys.readouterr().err


def test_the_demonstration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dpap.experiment.demo as demo
    from dpap.experiment.config import load_config

    (tmp_path / "quick.yaml").write_text(
        "data: {train_limit: 160, test_limit: 40}\nnetwork: {layers: 4C3-12FC-10FC, timesteps: 2}\n"
        "pruning: {target: 0.5, end_epoch: 2, observe_every: 1}\ntraining: {epochs: 2, threads: 1}\n"
    )
    monkeypatch.setattr(demo, "demo_config", lambda: load_config(tmp_path / "quick.yaml"))
    assert main(["demo", "--out", str(tmp_path / "demo"), "--quiet"]) == 0
    said = capsys.readouterr().out
    for quantity in (
        "test accuracy",
        "parameters stored",
        "MACs",
        "energy",
        "epoch at the end",
        "model file",
    ):
        assert quantity in said
    assert Path(said.partition("report: ")[2].strip()).is_file()


def test_networks_are_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *QUICK]) == 0
    said = capsys.readouterr().out
    assert "conv1" in said
    assert f"{4 * 9 + 4 * 16 * 12 + 12 * 10:,} weights" in said


def test_a_recipe_is_trained_by_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert "mnist_snn_2fc: mnist, snn_2fc (lif), 77% of the weights" in said and "nmnist_rates" in said
    assert main(["recipes", "digits_snn"]) == 0
    Path("mine.yaml").write_text(capsys.readouterr().out)
    quick = [
        "--training.epochs=2",
        "--pruning.end_epoch=2",
        "--network.layers=12FC-10FC",
        "--data.train_limit=160",
    ]
    assert main(["train", "--recipe", "digits_snn", *quick, "--network.width=1", "--out=one", "--quiet"]) == 0
    changed = {
        "training": {"epochs": 2}, "pruning": {"end_epoch": 2}, "network": {"layers": "12FC-10FC", "width": 1.0},
        "data": {"train_limit": 160}, "out": "one",
    }  # fmt: skip
    assert load_config("one/config.yaml") == overridden(load_config("mine.yaml"), changed)
    capsys.readouterr()
    assert main(["compare", "--recipe", "digits_snn", "--seeds=[0]", "--dry-run"]) == 0
    assert "digits_snn: dpap 0.6, seed 0" in capsys.readouterr().out
    Path("grid.yaml").write_text("- {recipe: mnist_snn_2fc, methods: [dpap]}\n")
    assert main(["compare", "--grid=grid.yaml", "--seeds=[0]", "--dry-run"]) == 0
    assert "mnist_snn_2fc: dpap 0.7736, seed 0" in capsys.readouterr().out


def test_data_sets_are_listed_and_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    assert "nmnist" in capsys.readouterr().out
    assert main(["data", "digits"]) == 0
    assert "1437 training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--training.epocs", "3"], "epocs"),
        (["train", "--training.epochs", "three"], "training.epochs"),
        (["train", "--training.epochs", "0"], "at least 1"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--data.name", "imagenet"], "imagenet"),
        (["train", "--network.layers", "12FC"], "12 classes|10 classes|12FC"),
        (["train", "--training.device", "cuda:99"], "cuda:99"),
        (["train", "--resume", "nowhere"], "holds no run"),
        (["train", "--resume", "nowhere", "--seed", "1"], "no other setting"),
        (["report", "nowhere"], "nowhere"),
        (["data", "imagenet"], "imagenet"),
        (["compare", "--seeds", "[]"], "seed"),
        (["compare", "--methods", "[dpap, dance]"], "unknown methods dance"),
        (["compare", "--methods", "[scratch_widths]"], "add dpap to the methods"),
        (["compare", "--methods", "[scratch]"], "needs pruning.target"),
        (["compare", "--grid", "nowhere.yaml"], "nowhere.yaml"),
        (["dance"], "dance"),
        (["trian"], "did you mean train?"),
        (["train", "--train.epochs", "3"], "did you mean --training.epochs?"),
        (["train", "--pruning.taget=0.3"], "did you mean --pruning.target?"),
        (["train", "--recipe", "digits_sn"], "no file or recipe 'digits_sn'; did you mean digits_snn?"),
        (["train", "--config", "recipes/digits_snn.yaml"], "--recipe digits_snn"),
        (["train", "--resume", "nowhere", "--recipe", "digits_snn"], "no other setting"),
        (["compare", "--grid", "digit"], "no file or grid 'digit'; did you mean digits?"),
        (["compare", "--methods", "[dpp, randm]"], "did you mean dpap, random?"),
        (["data", "minst"], "did you mean mnist?"),
        (["recipes", "nmnist_rate"], "did you mean nmnist_rates?"),
        ([], "demo"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_two(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert any(each in error for each in said.split("|"))
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpap.cli.train.train", interrupted)
    assert main(["train", "--out", str(tmp_path / "run")]) == 130
    assert f"dpap train --resume {tmp_path / 'run'}" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_run_goes_on_once_there_is_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*QUICK, "--network.neuron=relu", "--network.layers=12FC-10FC", "--quiet"]
    assert main(["train", *flags, "--out", str(tmp_path / "whole")]) == 0
    real, run, room = os.fsync, tmp_path / "run", [0]

    def fsync(descriptor: int) -> None:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= 1
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    capsys.readouterr()
    command = ["train", *flags, "--out", str(run)]
    for flushed in (1, 6, 9, 2, 10**6):
        room[0] = flushed
        code = main(command)
        error = capsys.readouterr().err
        assert code == (0 if flushed == 10**6 else 2), error
        if code:
            assert error.count("\n") == 1 and f"dpap: {run}/" in error
            assert (
                "No space left on device; make room on the disk" in error and "dpap train --resume" in error
            )
        if (run / "config.yaml").exists():
            command = ["train", "--resume", str(run), "--quiet"]
    assert command[1] == "--resume"
    same_bits(run, tmp_path / "whole")
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert not [each.name for each in run.iterdir() if each.name.endswith(".part")]


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        (b"seed: \xff", ["train", "--config", "file"]),
        (b"seed: [", ["train", "--config", "file"]),
        (b"- recipe: \xff", ["compare", "--grid", "file"]),
        (b"[" * 3_000, ["compare", "--grid", "file"]),
        (b"[" * 3_000, ["train", "--config", "file"]),
    ],
)
def test_a_file_that_is_no_text_or_no_yaml_is_one_line(
    content: bytes,
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(content)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "file" in error and "Traceback" not in error


@pytest.mark.parametrize(
    "file", ["run.json", "metrics.jsonl", "summary.json", "config.yaml", "checkpoint.pt"]
)
def test_a_folder_in_the_place_of_a_file_is_one_line(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {"run.json", "config.yaml", "metrics.jsonl"} - {file}:
        (tmp_path / name).write_text("{}")
    (tmp_path / file).mkdir()
    for arguments in (["train", "--resume", str(tmp_path)], ["report", str(tmp_path)]):
        assert main(arguments) in (0, 2)
        assert "Traceback" not in capsys.readouterr().err


def test_output_that_nothing_reads_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert main(["data"]) == 2
    assert capsys.readouterr().err == "dpap: the output: Broken pipe; let what reads it run to its end\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("dpap.cli.train.train", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(
    "command", ["demo", "train", "compare", "report", "export", "inspect", "recipes", "data"]
)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "Example: dpap" in " ".join(capsys.readouterr().out.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"dpap {version('dpap')}"


def test_the_package_runs_as_the_command() -> None:
    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "dpap", *arguments], capture_output=True, text=True)

    shown = ran("--version")
    assert (shown.returncode, shown.stdout) == (0, f"dpap {version('dpap')}\n")
    wrong = ran("report", "nowhere")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("dpap: ")
    assert "Traceback" not in wrong.stderr


def test_only_what_is_needed_is_imported() -> None:
    code = """
import contextlib, io, json, sys
import dpap
for command in sys.argv[1:]:
    if command:
        from dpap.cli import main
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            main(command.split())
    print(json.dumps([command, list(sys.modules)]))
"""
    ran = subprocess.run([sys.executable, "-c", code, *UNNEEDED], capture_output=True, text=True, check=True)
    imported = dict(json.loads(line) for line in ran.stdout.splitlines())
    assert imported.keys() == UNNEEDED.keys()
    unneeded = {command: UNNEEDED[command] & set(modules) for command, modules in imported.items()}
    assert not any(unneeded.values()), unneeded


def test_a_run_is_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--pruning.timesteps=false", "--out", str(run), "--quiet"]) == 0
    capsys.readouterr()
    written = []
    for package, to, flags in (
        ("nir", "nir", ()),
        ("onnxscript", "onnx", ()),
        ("onnxscript", "onnx", ("--step", "--samples=8", f"--out={tmp_path / 'step.onnx'}")),
    ):
        code = main(["export", str(run), "--to", to, *flags])
        said = capsys.readouterr()
        if find_spec(package) is None:
            assert code == 2
            assert 'pip install ".[' in said.err
        else:
            assert (code, said.err) == (0, "")
            assert "beside PyTorch on" in said.out
            written.append(to)
    assert main(["export", str(run), "--to", "plain"]) == 2
    assert "does not run without dpap" in capsys.readouterr().err and not (run / "plain.safetensors").exists()
    (tmp_path / "own.txt").write_text("Do what you like.")
    licence = ["--licence", "other", f"--licence-file={tmp_path / 'own.txt'}"]
    assert main(["export", str(run), "--to", "hub", *licence]) == 0
    card = (run / "hub" / "README.md").read_text()
    parameters = json.loads((run / "summary.json").read_text())["after"]["parameters"]
    assert f"{parameters:,} |" in card and "| accuracy on the test split | - |" in card
    assert main(["export", str(run), "--to", "hub", *licence]) == 2
    assert "(--out, --overwrite)" in capsys.readouterr().err
    assert main(["export", str(run), "--to", "hub", *licence, "--overwrite"]) == 0
    capsys.readouterr()
    assert (run / "model.nir").exists() is ("nir" in written)
    assert (run / "model.onnx").exists() is (tmp_path / "step.onnx").exists() is ("onnx" in written)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["nowhere", "--to=onnx"], "holds no run"),
        (["nowhere", "--to=nir", "--step"], "--step is for --to onnx; a NIR file is of one timestep anyhow"),
        (["nowhere", "--to=onnx", "--sum-pooling"], "--sum-pooling is for --to nir; got --to onnx"),
        (["nowhere", "--to=onnx", "--samples=0"], "at least 1"),
        (["nowhere", "--to=hub", "--licence=mit"], "names its licence"),
        (["nowhere", "--to=plain", "--overwrite"], "--overwrite is for --to hub; got --to plain"),
    ],
)
def test_an_export_that_cannot_be(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *flags]) == 2
    assert message in capsys.readouterr().err
