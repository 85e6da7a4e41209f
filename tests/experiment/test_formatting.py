import pytest

from dpap.experiment.formatting import accuracy, count, duration, loss, percent, quantity, ratio, rounded


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (percent(0.6014), "60.1%"),
        (percent(None), "–"),
        (percent(1, 0), "100%"),
        (accuracy(0.98204), "98.20%"),
        (accuracy(float("nan")), "–"),
        (loss(0.06213), "0.0621"),
        (count(596535.0), "596,535"),
        (rounded(596535.0), "597k"),
        (rounded(999.0), "999"),
        (rounded(999.6), "1k"),
        (rounded(999_600.0), "1M"),
        (rounded(2.5), "2.5"),
        (quantity(2.5, "J"), "2.5 J"),
        (quantity(0.0123, "J"), "12.3 mJ"),
        (quantity(0.9997e-3, "J"), "1 mJ"),
        (quantity(2e-6, "J"), "2 µJ"),
        (quantity(9e-10, "J"), "900 pJ"),
        (quantity(0.0, "J"), "0 pJ"),
        (quantity(123.4, "s"), "123 s"),
        (quantity(None, "s"), "–"),
        (duration(0.0), "0 s"),
        (duration(0.842), "0.842 s"),
        (duration(9.996), "10 s"),
        (duration(59.4), "59 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(185), "3 min 05 s"),
        (duration(7800), "2 h 10 min"),
        (duration(None), "–"),
        (ratio(21.0, 60.0), "0.35×"),
        (ratio(1.0, 400.0), "0.0025×"),
        (ratio(1.0, 0.0), "–"),
        (ratio(None, 1.0), "–"),
    ],
)
def test_numbers_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
