"""The battery for criteria finds what is wrong with one."""

from collections.abc import Iterator

import pytest
import torch

import dpap
from dpap.plasticity import CRITERIA
from dpap.plasticity.criteria.magnitude import Magnitude
from dpap.testing import check_criterion


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = dict(CRITERIA)
    yield
    CRITERIA.clear()
    CRITERIA.update(before)


class OneNumber(Magnitude):
    def unit_importance(self, layer):
        return super().unit_importance(layer).mean(0, keepdim=True)


class Infinite(Magnitude):
    def synapse_importance(self, layer):
        return super().synapse_importance(layer) / 0


class Drawn(Magnitude):
    def unit_importance(self, layer):
        return torch.rand(len(layer.weight()))


class Alike(Magnitude):
    def unit_importance(self, layer):
        return torch.ones_like(super().unit_importance(layer))


class Outside(Magnitude):
    def normalise(self, importance, alive, configured=None):
        return 3 * importance


class Rising(Magnitude):
    def decay(self, epoch, eta):
        return min(1.0, 0.1 + epoch / eta)


class BySynapses(dpap.Criterion):
    def observe_units(self, sums, shown, statistics):
        sums += shown.post_trace.sum(0) * (2 if statistics.synapses is None else 1)

    def observe_synapses(self, sums, shown, statistics):
        sums += shown.pre_trace.sum(0)


class ForgetsUnits(BySynapses):
    """Keeps to itself what belongs to the statistics, so that a saved state lacks it."""

    def __init__(self):
        self.seen = 0

    def observe_units(self, sums, shown, statistics):
        self.seen += 1
        sums += self.seen * shown.post_trace.sum(0)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (OneNumber(), r"unit_importance has \(6,\); got torch.Size\(\[1\]\)"),
        (Infinite(), "synapse_importance is finite"),
        (Drawn(), "unit_importance of equal statistics is equal"),
        (Alike(), "unit_importance tells units apart"),
        (Outside(), r"normalise maps to \[0, 1\]"),
        (Rising(), "decay is in .* never rises"),
        (BySynapses(), ".* the same where single synapses do not die"),
        (ForgetsUnits(), ".* of equal statistics is equal"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_is_wrong_is_said(criterion, message):
    dpap.register_criterion("mine", criterion)
    with pytest.raises(AssertionError, match=f"criterion 'mine': {message}"):
        check_criterion("mine")


def test_an_error_of_the_criterion_names_the_check():
    class Raises(Magnitude):
        def timestep_importance(self, layer):
            return layer.nothing

    dpap.register_criterion("mine", Raises())
    with pytest.raises(AssertionError, match=r"importances have their shapes: AttributeError: .*nothing"):
        check_criterion("mine")


def test_a_criterion_that_is_not_registered_is_refused():
    with pytest.raises(
        KeyError, match="no criterion 'mine' is registered; there are taylor_strength, taylor, bcm"
    ):
        check_criterion("mine")
