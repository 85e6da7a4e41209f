from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dpap.experiment.comparing.grid import Row, comparable, plan, read_grid
from dpap.experiment.errors import UserError
from dpap.experiment.recipes import list_grids

GRIDS = list_grids()
DEFAULTS: dict[str, Any] = {"methods": ["dpap"], "targets": [], "seeds": [0]}


def write(folder: Path, text: str) -> Path:
    (folder / "small.yaml").write_text(
        "name: small\npruning: {target: 0.5, end_epoch: 2}\ntraining: {epochs: 3}\n"
    )
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def test_runs_are_paired_and_the_dense_twin_comes_first(tiny: Any, tmp_path: Path) -> None:
    config = tiny()
    runs = plan([Row("tiny", config, ["dpap", "dense", "stdp"], [0.4, 0.6], [0, 3])], tmp_path)
    assert [str(run) for run in runs[:5]] == [
        "tiny: dense, seed 0", "tiny: dpap 0.4, seed 0", "tiny: stdp 0.4, seed 0",
        "tiny: dpap 0.6, seed 0", "tiny: stdp 0.6, seed 0",
    ]  # fmt: skip
    assert len(runs) == 10
    for run in runs:
        dense = next(each for each in runs if each.config.folder == run.dense)
        assert dense.method == "dense" and dense.seed == run.seed == run.config.seed
        assert (run.config.data, run.config.network, run.config.training) == (
            config.data, config.network, config.training,
        )  # fmt: skip
    assert len({run.config.folder for run in runs}) == len(runs)


def test_targets_of_different_things_are_different_runs_with_one_dense_twin(
    tiny: Any, tmp_path: Path
) -> None:
    config = tiny()
    rows = [
        Row("tiny", replace(config, pruning=replace(config.pruning, target_of=of)), ["dpap"], [0.4], [0])
        for of in ("weights", "macs")
    ]
    assert [(str(run), run.config.folder.name) for run in plan(rows, tmp_path)] == [
        ("tiny: dense, seed 0", "dense-seed0"),
        ("tiny: dpap 0.4, seed 0", "dpap-0.4-seed0"),
        ("tiny: dpap 0.4 macs, seed 0", "dpap-0.4-macs-seed0"),
    ]


def test_as_many_seeds_as_folds_test_on_every_sample(tiny: Any, tmp_path: Path) -> None:
    config = tiny()
    config = replace(config, data=replace(config.data, folds=3, fold=1))
    runs = plan([Row("tiny", config, ["dpap"], [0.4], [0, 1, 2])], tmp_path)
    assert [(run.seed, run.config.data.fold) for run in runs] == [
        (0, 1),
        (0, 1),
        (1, 2),
        (1, 2),
        (2, 0),
        (2, 0),
    ]


def test_rows_of_a_grid(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
- recipe: small.yaml
- {recipe: small.yaml, name: wide, methods: [magnitude], targets: [0.7, 0], seeds: [4],
   set: {network: {width: 2}, pruning: {conv: {epsilon: 0.9}}}}
- {recipe: small.yaml, name: last, set: {protocol: last}}
""",
    )
    small, wide, last = read_grid(path, **DEFAULTS, settle=lambda config: replace(config, name="settled"))
    assert (small.recipe, small.methods, small.targets, small.seeds) == ("small", ["dpap"], [], [0])
    assert (small.config.protocol, small.config.data.validation) == ("validation", 0.1)
    assert small.config.name == "settled"
    assert (wide.recipe, wide.methods, wide.targets, wide.seeds) == ("wide", ["magnitude"], [0.7, 0.0], [4])
    assert wide.config.network.width == 2
    assert (wide.config.pruning.conv.epsilon, wide.config.pruning.conv.eta) == (0.9, 12.0)
    assert (wide.config.pruning.target, wide.config.training.epochs) == (0.5, 3)
    assert (last.config.protocol, last.config.data.validation) == ("last", 0.0)
    runs = plan([small, wide, last], tmp_path / "out")
    assert [run.config.folder.relative_to(tmp_path / "out").as_posix() for run in runs[:4]] == [
        "small/dense-seed0", "small/dpap-0.5-seed0", "wide/dense-seed4", "wide/magnitude-0.7-seed4",
    ]  # fmt: skip


def test_same_runs_are_planned_once_and_different_ones_of_one_name_refused(tiny: Any, tmp_path: Path) -> None:
    row = Row("tiny", tiny(), ["dpap"], [0.5], [0])
    assert len(plan([row, replace(row, targets=[0.5, 0.6])], tmp_path)) == 3
    # the dense twin is that of any pruning
    assert len(plan([row, Row("tiny", tiny(pruning={"gamma": 0.5}), ["dpap"], [0.7], [0])], tmp_path)) == 3
    with pytest.raises(UserError, match="another `name`"):
        plan([row, Row("tiny", tiny(training={"epochs": 5}), ["dpap"], [0.5], [0])], tmp_path)


def test_mistakes_in_a_plan_are_named(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny.*one seed"):
        plan([Row("tiny", tiny(), ["dpap"], [], [])], tmp_path)
    with pytest.raises(UserError, match=r"tiny: .*target.*\[0, 1\)"):
        plan([Row("tiny", tiny(), ["dpap"], [1.5], [0])], tmp_path)
    with pytest.raises(UserError, match="tiny: unknown methods dance"):
        plan([Row("tiny", tiny(), ["dance"], [], [0])], tmp_path)
    with pytest.raises(UserError, match=r"tiny.*seeds must not be negative; got -1"):
        plan([Row("tiny", tiny(), ["dpap"], [], [-1])], tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list of rows"),
        ("recipe: small.yaml", "list of rows"),
        ("- [", "grid"),
        ("- methods: [dpap]", "row 1: expected `recipe`"),
        ("- {recipe: small.yaml, seed: [0]}", "row 1: expected `recipe` and any of"),
        (
            "- {recipe: small.yaml}\n- {recipe: nowhere.yaml}",
            "row 2: there is no file or recipe 'nowhere.yaml'",
        ),
        ("- {recipe: small.yaml, seeds: [zero]}", "`seeds` is a list of int"),
        ("- {recipe: small.yaml, seeds: 0}", "`seeds` is a list of int"),
        ("- {recipe: small.yaml, targets: [true]}", "`targets` is a list of float"),
        ("- {recipe: small.yaml, methods: dpap}", "`methods` is a list of str"),
        ("- {recipe: small.yaml, set: [1]}", "`set` holds keys"),
        ("- {recipe: small.yaml, set: {training: {epocs: 3}}}", "epocs"),
        ("- {recipe: small.yaml, set: {training: {epochs: 0}}}", "at least 1"),
        ("- {recipe: small.yaml, name: a/b}", "name a folder"),
        (f"- {{recipe: {'x' * 5000}}}", "row 1: recipe: .*too long"),
        (
            "- {recipe: small.yaml, set: {training: {epochs: null}}}",
            "row 1: .*training.epochs: expected a whole",
        ),
    ],
)
def test_mistakes_in_a_grid_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_grid(write(tmp_path, text), **DEFAULTS)


def test_a_grid_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        read_grid(tmp_path / "nowhere.yaml", **DEFAULTS)


def test_the_epoch_is_chosen_on_held_out_data_unless_another_protocol_is_asked_for(tiny: Any) -> None:
    assert comparable(tiny(), False).protocol == "validation"
    assert comparable(tiny(), False).data.validation == 0.1
    assert comparable(tiny(data={"validation": 0.3}), False).data.validation == 0.3
    assert comparable(tiny(), True) == tiny()
    assert comparable(tiny(protocol="paper"), False) == tiny(protocol="paper")


@pytest.mark.parametrize("path", GRIDS, ids=[path.stem for path in GRIDS])
def test_grids_that_come_along_can_be_run(path: Path, tmp_path: Path) -> None:
    assert plan(read_grid(path, **DEFAULTS), tmp_path)
