import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpap.report import cost_table, words
from dpap.report.cost_table import GROUPS
from dpap.report.records import read_run

MakeRun = Callable[..., Path]


def measured(run: Path, **changes: dict[str, Any]) -> Path:
    """A run whose summary has other costs "before" or "after"."""
    summary = json.loads((run / "summary.json").read_text())
    for part, costs in changes.items():
        summary[part] = {**summary[part], **costs}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def lines(run: Path) -> dict[str, tuple[str, ...]]:
    return {row.name: row.values for group in cost_table.groups(read_run(run)) for row in group.rows}


def test_numbers_of_one_group_have_one_unit(twins: Path) -> None:
    """Additions of single spikes may exceed the operations that they do: neither is a part of the other."""
    measured(twins, after={"synaptic_operations": 1074456.0, "accumulates": 2047671.0})
    groups = {row.name: group.name for group in cost_table.groups(read_run(twins)) for row in group.rows}
    assert groups["Additions"] == groups["Multiplications"] != groups["Synaptic operations"]
    assert not [each for each in (*groups, *groups.values()) if "of these" in each]


def test_every_number_stands_beside_that_of_a_network_that_it_compares_with(
    twins: Path, make_run: MakeRun
) -> None:
    assert cost_table.head(read_run(twins)) == ("dense twin", "compact", "ratio")
    beside, alone = lines(twins), lines(make_run("alone"))
    of_spikes = {each.name for group in GROUPS.values() for each in group if each.of_spikes}
    assert {name for name, values in alone.items() if values[-1] == "–"} == of_spikes
    assert "–" not in {value for values in beside.values() for value in values}
    assert lines(make_run("dense-one", dense=True))["Parameters"] == ("596,900",)


def test_without_costs_there_is_no_table(make_run: MakeRun) -> None:
    assert cost_table.groups(read_run(make_run(finished=False))) == []


@pytest.mark.parametrize(
    ("dense", "compact", "ratio", "says"),
    [
        ((1.9, 2.0, 2.1), (2.05, 2.18, 2.3), "same", "the dense network’s time, within the spread"),
        (
            (1.9, 2.0, 2.1),
            (0.6, 0.7, 0.8),
            "0.35×",
            "takes 0.35× the time of the dense network (700 ms beside 2 s).",
        ),
        ((1.9, 2.0, 2.1), (1.4, 1.5, 1.6), "0.75×", "part of the time goes into starting each operation"),
        ((1.9, 2.0, 2.1), (2.4, 2.5, 2.6), "1.25×", "takes longer, 1.25× the dense network’s time"),
    ],
)
def test_a_latency_is_the_same_within_its_spread(
    dense: tuple[float, ...], compact: tuple[float, ...], ratio: str, says: str, make_run: MakeRun
) -> None:
    names = ("latency_low", "latency_seconds", "latency_high")
    before, after = (dict(zip(names, times, strict=True)) for times in (dense, compact))
    run = measured(make_run(), before=before, after=after)
    latency = words.latency(read_run(run))
    assert (
        latency is not None
        and latency.ratio == ratio == lines(run)["Latency"][-1]
        and says in latency.sentence
    )


def test_a_latency_without_its_spread_compares_with_nothing(make_run: MakeRun) -> None:
    """Older runs measured it once, of both networks at different moments."""
    unknown = {"latency_low": None, "latency_high": None}
    run = measured(make_run(), before=unknown, after=unknown)
    assert words.latency(read_run(run)) is None
    assert lines(run)["Latency"] == ("4.2 ms", "2.74 ms", "–")
