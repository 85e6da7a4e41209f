import dataclasses
from collections.abc import Callable
from pathlib import Path

from dpap.report.records import Survival, read_run
from dpap.report.survival import SHOWN, survival_functions, unit_histories


def test_histories_are_the_columns_of_the_records(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    units = unit_histories(run, "conv2")
    assert len(units) == 40
    for unit in units:
        column = [record.layers["conv2"][unit.unit] for record in run.survival]
        assert unit.values == [value for value in column if value is not None]
        assert unit.died == next(
            (r.epoch for r, v in zip(run.survival, column, strict=True) if v is None), None
        )


def test_lines_end_at_the_zero_line_where_a_unit_died(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    figure = survival_functions(run, "conv1")
    assert figure is not None
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    for unit in unit_histories(run, "conv1"):
        drawn = list(lines[f"unit {unit.unit}"].get_ydata())
        assert drawn[: len(unit.values)] == unit.values
        assert drawn[len(unit.values) :] == ([] if unit.died is None else [0.0])
    deaths = sorted(unit.died for unit in unit_histories(run, "conv1") if unit.died is not None)
    assert list(lines["deaths"].get_xdata()) == deaths
    assert list(lines["zero"].get_ydata()) == [0, 0]


def test_of_many_units_a_spread_is_drawn_and_counted(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    figure = survival_functions(run, "fc1")
    assert figure is not None
    drawn = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith("unit ")]
    assert len(drawn) == 2 * SHOWN
    dead = sum(unit.died is not None for unit in unit_histories(run, "fc1"))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert f"{dead} dead, {SHOWN} drawn" in texts and f"{300 - dead} alive, {SHOWN} drawn" in texts


def test_layers_that_are_all_alive_or_all_dead(make_run: Callable[..., Path]) -> None:
    run = dataclasses.replace(
        read_run(make_run()),
        survival=(Survival(1, {"a": [1.0, 2.0], "b": [None]}), Survival(2, {"a": [0.5, 2.5], "b": [None]})),
    )
    for layer in ("a", "b"):
        assert survival_functions(run, layer) is not None
    assert survival_functions(run, "elsewhere") is None
