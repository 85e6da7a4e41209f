"""Flags that a subcommand takes, and does not mean: each is named as it was typed, with what to give instead."""

from pathlib import Path

import pytest

from dpap.cli import main
from dpap.cli.shared import typed_flags
from dpap.experiment.parser import Parser


@pytest.fixture(autouse=True)
def nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DPAP_DATA", raising=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "gradual_magnitude"], "did you mean --methods?"),
        (["--seed=3"], "did you mean --seeds?"),
        (["--prune", "false"], "--methods '[dense]'"),
        (["--structure=x"], "--structure is of one run"),
        (["--seeds", "[-1]"], "seeds must not be negative; got -1"),
        (["--methods", "dpap"], "methods: expected a list, as in '[dpap]'; got dpap"),
        (["--grid", "digits", "--name", "x"], "a row of a grid has its own `name`"),
    ],
)
def test_a_comparison_takes_no_flag_that_it_would_ignore(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_flags_that_are_shortened_are_told_too() -> None:
    parser = Parser()
    for flag in ("--seed", "--seeds", "--protocol"):
        parser.add_argument(flag)
    assert typed_flags(parser, "dpap compare --proto=last --seed 3 --seeds '[--x]' here --no") == [
        "--protocol", "--seed", "--seeds", "--no"
    ]  # fmt: skip


def test_the_name_of_a_recipe_is_that_of_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--name=other", "--out=here", "--seeds=[0]", "--dry-run"]) == 0
    assert "other: dpap, seed 0" in capsys.readouterr().out


def test_a_row_of_a_grid_without_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    Path("rows.yaml").write_text("- {recipe: digits_snn}\n- {recipe: digits_sn}\n")
    assert main(["compare", "--grid", "rows.yaml", "--dry-run"]) == 2
    assert "rows.yaml, row 2: there is no file or recipe 'digits_sn'; did you mean digits_snn?" in (
        capsys.readouterr().err
    )


def test_missing_data_is_one_error_before_the_first_run(capsys: pytest.CaptureFixture[str]) -> None:
    lost = ["--data.name=mnist", "--data.root=nowhere", "--out=compared"]
    assert main(["compare", *lost]) == 2
    said = capsys.readouterr()
    assert said.err.count("the data root nowhere is not a folder") == 1 and said.out == ""
    assert "No run was begun" in said.err and not Path("compared").exists()


@pytest.mark.parametrize("flags", [["--pruning.target", "0.4"], ["--seed=-5"], ["--overwrite"], ["--seed=0"]])
def test_a_run_that_goes_on_takes_no_other_setting(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", "nowhere", *flags]) == 2
    name = flags[0].partition("=")[0]
    assert f"no other setting but --quiet, --allow-imports, --timeout; got {name}" in capsys.readouterr().err
    assert main(["train", "--resume=nowhere", "--quiet", "--allow-imports", "--timeout=9"]) == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.parametrize("download", [[], ["--download"]])
def test_data_names_its_own_flags(download: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "mnist", *download]) == 2
    error = capsys.readouterr().err
    assert "set --root or the environment variable DPAP_DATA" in error and "data.root" not in error
    assert "(dpap data mnist --download --root FOLDER)" in error
    assert main(["inspect", "--data.name=mnist"]) == 2
    assert "set data.root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to=plain", "--step"], "--step is for --to onnx; got --to plain"),
        (["--to=onnx", "--pool-spikes"], "--pool-spikes is for --to nir; got --to onnx"),
        (["--to=nir", "--tags=[a]"], "--tags is for --to hub; got --to nir"),
        (["--to=onnx", "--licence-file=x"], "--licence-file is for --to hub"),
        (
            ["--to=hub", "--samples=3"],
            "--samples is for --to onnx or nir or plain; a hub folder is not compared",
        ),
    ],
)
def test_an_export_names_the_flag_that_was_typed(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "nowhere", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and "NIR" not in error


def test_the_demonstration_names_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seed", "-5"]) == 2
    assert capsys.readouterr().err == "dpap: --seed must not be negative; got -5\n"


@pytest.mark.parametrize("width", ["1e9", "1e18", "1e308"])
def test_a_network_that_no_memory_holds(width: str, capsys: pytest.CaptureFixture[str]) -> None:
    big = ["--network.layers=64C3-10FC", f"--network.width={width}"]
    for command in (["train", "--prune=false"], ["inspect"]):
        assert main([*command, *big]) == 2
        assert "more memory is needed than there is" in (error := capsys.readouterr().err)
        assert "lower network.width" in error and error.count("\n") == 1
    assert not list(Path().iterdir())
