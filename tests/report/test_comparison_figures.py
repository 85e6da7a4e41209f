from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from dpap.experiment.comparing.methods import ABLATIONS, METHODS
from dpap.experiment.comparing.results import EpochResult, Result
from dpap.experiment.comparing.significance import groups
from dpap.report import comparison_figures as figures
from dpap.report.style import as_png
from support.comparison import made

RESULTS = [
    made("dense", 0, 0.90, converged=4, epochs=5),
    made("dense", 1, 0.92, converged=2, epochs=5),
    made("dpap", 0, 0.91, 0.5, converged=2, epochs=5),
    made("dpap", 1, 0.91, 0.5, epochs=5),
    made("hebb", 0, 0.80, 0.5, epochs=5),
    made("hebb", 1, 0.86, 0.5, epochs=5),
]
TABLE = groups(RESULTS)["digits"]
EPOCHS = [
    EpochResult("digits", each.method, each.target, each.target_of, each.seed, epoch,
                0.1 * epoch + 0.1 * each.seed, None, 0.0, 0.0,
                900 - 100 * epoch, 1.0)
    for each in RESULTS
    for epoch in (1, 2, 3)
]  # fmt: skip


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    as_png(figure)
    return found


def line(figure: Figure | None, name: str, panel: int = 0, axis: str = "y") -> Sequence[float]:
    assert figure is not None
    drawn = next(each for each in figure.axes[panel].lines if each.get_gid() == name)
    values: list[float] = np.asarray(drawn.get_ydata() if axis == "y" else drawn.get_xdata()).tolist()
    return values


def sized(method: str, accuracy: float, target: float | None, parameters: int, macs: int) -> list[Result]:
    return [
        made(method, seed, accuracy + 0.02 * seed, target, parameters=parameters, macs=macs)
        for seed in (0, 1)
    ]


def test_dense_networks_of_all_widths_are_a_line_and_each_method_points_beside_it() -> None:
    results = [
        *sized("dense", 0.9, None, 100_000, 2_000_000),
        *sized("scratch", 0.5, 0.98, 2_000, 30_000),
        *sized("scratch", 0.7, 0.9, 10_000, 500_000),
        *sized("paper", 0.4, 0.9, 10_000, 150_000),
        *sized("dpap", 0.8, 0.9, 9_000, 400_000),
        *sized("dpap", 0.6, 0.98, 2_000, 90_000),
    ]
    figure = figures.accuracy_by_size(groups(results)["digits"])
    for panel, sizes in enumerate(([2_000, 10_000, 100_000], [30_000, 500_000, 2_000_000])):
        assert line(figure, "dense", panel, "x") == pytest.approx(sizes)
        assert line(figure, "dense", panel) == pytest.approx([0.51, 0.71, 0.91])
    assert sorted(zip(line(figure, "dpap", 1, "x"), line(figure, "dpap", 1), strict=True)) == [
        (90_000, pytest.approx(0.61)), (400_000, pytest.approx(0.81))
    ]  # fmt: skip
    assert figure is not None
    (bars,) = (one for one in figure.axes[0].containers if one[0].get_gid() == "paper")
    low, high = bars[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.41 - 0.02 / 2**0.5, 0.41 + 0.02 / 2**0.5))
    shown = texts(figure)
    assert {"dense, from scratch", "● dpap", "■ paper"} <= set(shown)
    assert [axes.get_xlabel() for axes in figure.axes] == ["parameters", "MACs"]


def test_sizes_without_small_dense_networks_say_so() -> None:
    figure = figures.accuracy_by_size(TABLE)
    shown = texts(figure)
    assert figure is not None
    assert "dense" in shown and "dense, from scratch" not in shown
    assert any("not measured" in text.get_text() for text in figure.texts)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=5))
def test_any_size_has_a_place_and_a_tick(sizes: list[int]) -> None:
    results = [
        made("dpap", 0, 0.9, place / 10, parameters=size, macs=size) for place, size in enumerate(sizes)
    ]
    figure = figures.accuracy_by_size(groups(results)["digits"])
    assert figure is not None
    for axes in figure.axes:
        shown = axes.get_xlim()
        points = [x for one in axes.containers for x in np.asarray(one[0].get_xdata())]
        assert len(points) == len(sizes) and all(shown[0] <= x <= shown[1] for x in points)
        ticks = axes.get_xticks()
        assert 1 <= len(ticks) <= 9 and all(shown[0] <= tick <= shown[1] for tick in ticks)


def test_shares_of_multiplications_are_not_drawn_among_shares_of_weights() -> None:
    other = made("units_random", 0, 0.7, 0.5, epochs=5, target_of="macs")
    table = groups([*RESULTS, other])["digits"]
    shown = texts(figures.accuracy_by_pruning(table))
    assert any("hebb" in text for text in shown) and not any("units" in text for text in shown)
    assert sum("n = 1" in text for text in texts(figures.differences(table, (0.5, "macs")))) == 1


def test_of_many_targets_the_first_and_the_last_are_among_the_lines() -> None:
    results = [made("dpap", 0, 0.9, target / 10, epochs=5) for target in range(1, 9)]
    epochs = [
        EpochResult("digits", "dpap", each.target, "weights", 0, 1, 0.5, None, 0.0, 0.0, 900, 1.0)
        for each in results
    ]
    shown = texts(figures.accuracies(groups(results)["digits"], epochs))
    assert sum("dpap" in text for text in shown if "%  " in text) == figures.LINES
    assert any("dpap 10%" in text for text in shown) and any("dpap 80%" in text for text in shown)


def test_the_lines_are_means_over_the_seeds() -> None:
    figure = figures.accuracies(TABLE, EPOCHS)
    assert line(figure, "dpap 50%") == pytest.approx([0.15, 0.25, 0.35])
    assert any("dense" in text for text in texts(figure))
    assert not any("hebb" in text for text in texts(figure))  # the leading method alone
    assert line(figures.weights_alive(TABLE, EPOCHS), "dpap 50%") == pytest.approx([800, 700, 600])


def test_epochs_to_converge_count_the_seeds_that_did() -> None:
    shown = texts(figures.convergence(TABLE))
    assert shown == ["3.0", "2.0, 1 of 2 seeds"]


def test_differences_carry_their_verdict() -> None:
    shown = texts(figures.differences(TABLE, (0.5, "weights")))
    assert shown == ["+0.00 tie", "−8.00 tie"]
    assert figures.differences(TABLE, (0.9, "weights")) is None


def test_a_line_for_every_method_of_them_all() -> None:
    results = [
        made(method, 0, 0.9 - 0.01 * place, None if method == "dense" else target)
        for place, method in enumerate(METHODS)
        for target in ((0.5,) if method == "dense" else (0.5, 0.9))
    ]
    shown = texts(figures.accuracy_by_pruning(groups(results)["digits"]))
    every = figures.accuracy_by_size(groups(results)["digits"])
    signs = [text.partition(" ")[2] for text in texts(every) if not text.startswith("dense")]
    assert sorted(signs) == sorted(
        name.replace("_", " ") for name in METHODS if name not in (*ABLATIONS, *figures.WIDTHS)
    )
    names = {name.replace("_", " ") for name in METHODS if name not in (*ABLATIONS, "dense")}
    assert names <= set(shown) and not {name.replace("_", " ") for name in ABLATIONS} & set(shown)
    alone = [result for result in results if result.method in ("dense", *ABLATIONS)]
    assert "no trace" in texts(figures.accuracy_by_pruning(groups(alone)["digits"]))


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5, unique=True))
def test_any_share_pruned_has_a_place_and_a_tick_of_its_value(sparsities: list[float]) -> None:
    results = [made("dpap", 0, 0.9, share) for share in sparsities]
    figure = figures.accuracy_by_pruning(groups(results)["digits"])
    assert figure is not None
    axes = figure.axes[0]
    shown = sorted(axes.get_xlim())
    points = [x for one in axes.containers for x in np.asarray(one[0].get_xdata())]
    assert len(points) == len(sparsities) and all(shown[0] <= x <= shown[1] for x in points)
    ticks = axes.xaxis.get_ticklabels()
    assert ticks and all(
        float(tick.get_text().rstrip("%")) == pytest.approx(100 - 100 * tick.get_position()[0], abs=1e-3)
        for tick in ticks
    )


def test_what_is_not_there_is_not_drawn() -> None:
    dense = groups(RESULTS[:2])["digits"]
    assert figures.accuracy_by_size(dense) is None
    assert figures.accuracy_by_pruning(dense) is None
    assert figures.convergence(dense) is None
    assert figures.accuracies(dense, []) is None
