import pytest

from dpap.experiment.tables import quantity, text_table


def test_columns_line_up() -> None:
    assert text_table(["", "dense"], [["weights", "5"], ["MACs", "1,000"]]) == (
        "         dense\n-------  -----\nweights      5\nMACs     1,000"
    )
    with pytest.raises(ValueError, match="2 cells"):
        text_table(["a", "b"], [["1"]])


@pytest.mark.parametrize(
    ("value", "said"), [(2.5, "2.5 J"), (0.0123, "12.3 mJ"), (2e-6, "2 µJ"), (9e-10, "900 pJ"), (0.0, "0 pJ")]
)
def test_quantities_have_prefixes(value: float, said: str) -> None:
    assert quantity(value, "J") == said
