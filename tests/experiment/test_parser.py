from argparse import ArgumentError
from typing import Any, Literal

import pytest

from dpap.experiment.config import ExperimentConfig, overridden
from dpap.experiment.errors import UserError
from dpap.experiment.parser import Parser


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prunning": {"target": 0.5}}, "'prunning.target' is not accepted; did you mean pruning.target?"),
        ({"pruning": {"taget": 0.5}}, "option 'taget'; did you mean pruning.target?"),
        ({"pruning": {"conv": {"epsilom": 1}}}, "'conv.epsilom'; did you mean pruning.conv.epsilon?"),
        ({"seeds": 4}, "'seeds' is not accepted; did you mean seed?"),
        ({"training": {"optimizer": "adm"}}, "expected one of adam, adamw, sgd; got adm; did you mean adam?"),
        ({"training": {"epochs": "many"}}, "training.epochs: expected a whole number; got many"),
        ({"training": {"threads": "many"}}, "training.threads: expected a whole number or null; got many"),
        ({"pruning": {"target": "a"}}, "pruning.target: expected a number or null; got a"),
        ({"prune": "maybe"}, "prune: expected true or false; got maybe"),
        ({"pruning": {"criterion": "bmc"}}, "got 'bmc'; did you mean bcm?"),
        ({"pruning": {"target_of": "mac"}}, "did you mean macs?"),
        ({"network": {"layers": "vgg61"}}, "did you mean vgg16?"),
        ({"network": {"surrogate": "artan"}}, "did you mean arctan?"),
        ({"network": {"neuron": "lfi"}}, "did you mean lif?"),
    ],
)
def test_configurations_are_refused_in_words(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        overridden(ExperimentConfig(), changes)
    assert message in str(refused.value)
    assert "class '" not in str(refused.value) and "typing" not in str(refused.value)


def parser() -> Parser:
    made = Parser(exit_on_error=False)
    made.add_argument("--training.epochs", type=int)
    made.add_argument("--mode", type=Literal["counts", "binary"] | None)
    made.add_argument("--to", choices=["onnx", "nir"])
    made.add_argument("--targets", type=list[float])
    made.add_argument("--arguments", type=dict[str, int])
    return made


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--train.epochs", "3"],
            "unrecognized arguments: --train.epochs 3; did you mean --training.epochs?",
        ),
        (["--epochs=3", "--too=nir"], "did you mean --training.epochs for --epochs, --to for --too?"),
        (["--wholly-other"], "unrecognized arguments: --wholly-other"),
        (["--targets", "0.5, 0.7"], "targets: expected a list, as in '[0.5, 0.7]'; got 0.5, 0.7"),
        (["--targets", "[0.5"], "targets: expected a list, as in '[0.5]'; got [0.5"),
        (["--targets", "[a]"], "targets: expected a number; got a"),
        (["--arguments", "3"], "arguments: expected keys and values, as in '{key: value}'; got 3"),
        (["stray"], "unrecognized arguments: stray"),
        (["--to", "onx"], "did you mean onnx?"),
        (
            ["--mode", "cuonts"],
            "mode: expected one of counts, binary or null; got cuonts; did you mean counts?",
        ),
    ],
)
def test_flags_are_refused_in_words(flags: list[str], message: str) -> None:
    with pytest.raises(ArgumentError) as refused:
        parser().parse_args(flags)
    assert str(refused.value).endswith(message)
