import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dpap.report import figures
from dpap.report.records import Run, read_run


def line(figure: Figure | None, name: str) -> list[float]:
    assert figure is not None
    return next(
        [float(y) for y in line.get_ydata()] for line in figure.axes[0].lines if line.get_gid() == name
    )


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts)]


@pytest.fixture
def run(twins: Path) -> Run:
    return read_run(twins)


def test_accuracies(run: Run) -> None:
    figure = figures.accuracies(run)
    assert run.twin is not None
    assert line(figure, "pruned test") == [e.test_accuracy for e in run.epochs]
    assert line(figure, "pruned train") == [e.train_accuracy for e in run.epochs]
    assert line(figure, "twin test") == [e.test_accuracy for e in run.twin.epochs]
    assert f"pruned {100 * run.epochs[-1].test_accuracy:.2f}%" in texts(figure)


def test_accuracy_below_the_edge_is_written(run: Run) -> None:
    figure = figures.accuracies(run)
    assert figure is not None and figure.axes[0].get_ylim()[0] > run.epochs[0].test_accuracy
    assert any(text.startswith("begins below") for text in texts(figure))


def test_validation_is_drawn_where_there_is_one(run: Run) -> None:
    epochs = tuple(dataclasses.replace(e, validation_accuracy=0.97) for e in run.epochs)
    assert line(figures.accuracies(dataclasses.replace(run, epochs=epochs)), "validation") == [0.97] * 20


def test_sparsity_beside_what_was_scheduled(run: Run) -> None:
    figure = figures.sparsities(run)
    assert line(figure, "sparsity") == [e.sparsity for e in run.epochs]
    assert line(figure, "target") == [e.target for e in run.epochs]
    assert "scheduled 60.0%" in texts(figure)


def test_timesteps_are_drawn_where_some_died(run: Run) -> None:
    epochs = tuple(dataclasses.replace(e, timestep_sparsity=0.01 * e.epoch) for e in run.epochs)
    figure = figures.sparsities(dataclasses.replace(run, epochs=epochs))
    assert line(figure, "timestep sparsity")[-1] == pytest.approx(0.2)


def test_units_and_weights_alive(run: Run) -> None:
    for index, layer in enumerate(run.epochs[-1].layers):
        units = [e.layers[index].alive / layer.units for e in run.epochs]
        weights = [e.layers[index].weights_alive / layer.weights for e in run.epochs]
        assert line(figures.units_alive(run), layer.name) == units
        assert line(figures.weights_alive(run), layer.name) == weights
        assert f"{layer.name}: {layer.alive} of {layer.units}" in texts(figures.units_alive(run))


def test_many_layers_become_a_map(run: Run) -> None:
    copies = [
        (e, [dataclasses.replace(e.layers[0], name=f"layer{i}") for i in range(20)]) for e in run.epochs
    ]
    many = dataclasses.replace(run, epochs=tuple(dataclasses.replace(e, layers=tuple(c)) for e, c in copies))
    figure = figures.units_alive(many)
    assert figure is not None
    drawn = figure.axes[0].images[0].get_array()
    assert drawn is not None and drawn.shape == (20, 20)
    assert drawn[3].tolist() == [e.layers[0].alive / 15 for e in run.epochs]


def test_seconds_and_compactions(run: Run) -> None:
    figure = figures.epoch_seconds(run)
    assert run.twin is not None
    assert line(figure, "seconds") == [e.seconds for e in run.epochs]
    assert line(figure, "twin seconds") == [e.seconds for e in run.twin.epochs]
    assert line(figure, "compactions") == [run.epochs[3].seconds, run.epochs[8].seconds]


def test_decay_values_that_agree_share_a_line(run: Run) -> None:
    figure = figures.decay_values(run)
    assert line(figure, "conv") == [e.epsilon["conv"] for e in run.epochs]
    assert line(figure, "neuron, synapse") == [e.epsilon["neuron"] for e in run.epochs]


def test_one_label_stands_for_all_kinds_that_agree(run: Run) -> None:
    epochs = tuple(dataclasses.replace(e, epsilon={"conv": -0.5, "neuron": -0.5}) for e in run.epochs)
    figure = figures.decay_values(dataclasses.replace(run, epochs=epochs))
    assert "all kinds −0.5" in texts(figure)


def test_a_kind_that_begins_late_is_drawn_from_its_first_epoch(run: Run) -> None:
    epochs = tuple(dataclasses.replace(e, epsilon={} if e.epoch < 5 else e.epsilon) for e in run.epochs)
    figure = figures.decay_values(dataclasses.replace(run, epochs=epochs))
    assert len(line(figure, "conv")) == 16 and len(line(figure, "neuron, synapse")) == 16


@pytest.mark.parametrize(
    "draw", [figures.sparsities, figures.units_alive, figures.weights_alive, figures.decay_values]
)
def test_a_dense_run_has_nothing_that_died(
    draw: Callable[[Run], Figure | None], make_run: Callable[..., Path]
) -> None:
    assert draw(read_run(make_run(dense=True))) is None


def test_nothing_recorded_is_no_figure(run: Run) -> None:
    bare = tuple(
        dataclasses.replace(e, train_accuracy=None, test_accuracy=None, seconds=None) for e in run.epochs
    )
    empty = dataclasses.replace(run, epochs=bare, twin=None)
    assert figures.accuracies(empty) is None and figures.epoch_seconds(empty) is None
