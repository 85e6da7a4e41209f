from collections.abc import Callable
from pathlib import Path

from matplotlib.patches import Rectangle

from dpap.report.records import read_run
from dpap.report.structure import network, rows, unit_map


def test_bars_are_as_wide_as_the_layers(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    figure = network(run)
    assert figure is not None
    widths = {p.get_gid(): p.get_width() for p in figure.axes[0].patches if isinstance(p, Rectangle)}
    for row in rows(run):
        assert widths[f"built {row.name}"] == row.units
        assert widths[f"alive {row.name}"] == row.alive


def test_rows_join_the_last_epoch_and_the_compact_network(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert run.summary is not None and run.summary.after is not None
    assert [row.stored for row in rows(run)] == [layer.weights for layer in run.summary.after.layers]
    assert [row.alive for row in rows(run)] == [layer.alive for layer in run.epochs[-1].layers]
    assert all(row.stored is None for row in rows(read_run(make_run("partial", finished=False))))


def test_a_dense_run_has_the_structure_of_its_summary(make_run: Callable[..., Path]) -> None:
    found = [(row.name, row.units, row.alive) for row in rows(read_run(make_run(dense=True)))]
    assert found == [("conv1", 15, 15), ("conv2", 40, 40), ("fc1", 300, 300), ("fc2", 10, 10)]


def test_every_unit_has_its_cell(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    figure = unit_map(run)
    assert figure is not None
    for name, values in run.survival[-1].layers.items():
        cells = {line.get_gid(): line.get_xydata() for line in figure.axes[0].lines}
        top = min(cells[f"alive {name}"][:, 1].min(), cells[f"dead {name}"][:, 1].min())
        alive = {round(50 * (y - top) + x) for x, y in cells[f"alive {name}"]}
        assert alive == {unit for unit, value in enumerate(values) if value is not None}
    assert unit_map(read_run(make_run("dense", dense=True))) is None
