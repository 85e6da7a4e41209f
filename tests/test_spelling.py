import pytest

from dpap.spelling import nearest, suggestion

FIELDS = [
    "training.epochs",
    "training.threads",
    "pruning.target",
    "pruning.target_of",
    "pruning.conv.epsilon",
    "seed",
]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("train.epochs", "training.epochs"),
        ("epochs", "training.epochs"),
        ("Training-Epochs", "training.epochs"),
        ("pruning.taget", "pruning.target"),
        ("training.target", "pruning.target"),
        ("pruning.epsilon", "pruning.conv.epsilon"),
        ("sed", "seed"),
        ("lr", None),
        ("", None),
        (3, None),
    ],
)
def test_the_nearest_name(given: object, meant: str | None) -> None:
    assert nearest(given, FIELDS) == meant


def test_a_suggestion_ends_a_message() -> None:
    assert suggestion("bmc", ["taylor", "bcm", "bcm_strength"]) == "; did you mean bcm?"
    assert suggestion("xyz", ["taylor", "bcm"]) == suggestion("xyz", []) == ""
