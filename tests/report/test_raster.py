import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from dpap.experiment.errors import UserError
from dpap.report import words
from dpap.report.raster import caption, raster
from dpap.report.records import SpikingLayer, read_run

MakeRun = Callable[..., Path]


def drawn(figure: Figure | None, gid: str) -> int:
    """How many spikes, or silenced timesteps, a figure holds."""
    assert figure is not None
    return sum(len(each.get_paths()) for each in figure.axes[0].collections if each.get_gid() == gid)


def test_every_spike_and_every_silenced_timestep_is_drawn(make_run: MakeRun) -> None:
    spikes = read_run(make_run()).spikes
    assert spikes is not None
    whole, silenced = spikes.layers
    assert (drawn(raster(whole), "spikes"), drawn(raster(whole), "silenced")) == (11, 0)
    assert (drawn(raster(silenced), "spikes"), drawn(raster(silenced), "silenced")) == (3, 2)
    assert caption(whole) == (
        "Drawn: 3 of 9 units, evenly spread, of each the neuron that fired most. "
        "In all 7,056 neurons, 41 spikes of this sample."
    )
    assert raster(SpikingLayer("none", 0, 0, 0, 0.0, {})) is None


def test_what_is_not_drawn_is_said(make_run: MakeRun) -> None:
    run = read_run(make_run())
    assert words.sample(run) == "The compact network on the first test sample, of class 7, over 8 timesteps."
    assert run.spikes is not None
    more = dataclasses.replace(run, spikes=dataclasses.replace(run.spikes, timesteps=300, total_layers=30))
    assert words.sample(more).endswith("The first 8 timesteps are drawn. The first 2 of 30 layers are drawn.")


def test_an_older_run_has_none(make_run: MakeRun) -> None:
    path = make_run()
    (path / "spikes.json").unlink()
    run = read_run(path)
    assert run.spikes is None and not run.missing and words.sample(run) == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"spikes": "0 1"}, r"rows\[0\]: expected text of 0, 1 and - as “spikes”, got '0 1'"),
        ({"spikes": None}, "got None"),
        ({"unit": "a"}, "expected a whole number as “unit”"),
    ],
)
def test_a_file_that_no_run_writes_is_refused(
    change: dict[str, object], expected: str, make_run: MakeRun
) -> None:
    path = make_run()
    record = json.loads((path / "spikes.json").read_text())
    record["layers"][0]["rows"][0] |= change
    (path / "spikes.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=expected):
        read_run(path)
