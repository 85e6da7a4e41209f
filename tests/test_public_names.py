import ast
from pathlib import Path
from typing import get_type_hints

import pytest
from torch import nn

import dpap

SOURCE = ast.parse(Path(dpap.__file__).read_text(encoding="utf-8"))


def test_what_checkers_see_is_what_there_is() -> None:
    seen = {
        alias.name: node.module
        for node in ast.walk(SOURCE)
        if isinstance(node, ast.ImportFrom) and node.module not in ("importlib", "typing", "dpap.spelling")
        for alias in node.names
    }
    assert sorted(seen) == sorted(dpap.__all__)
    assert {name: f"dpap.{part}" for name, part in dpap._PLACE_OF.items()} == seen
    assert set(dpap.__all__) <= set(dir(dpap))
    for name in dpap.__all__:
        assert getattr(dpap, name).__module__.startswith(str(seen[name]))
    assert dpap.spiking.LIF and dpap.anatomy.find_wiring is dpap.find_wiring


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(
        AttributeError, match="module 'dpap' has no attribute 'Pruning'; did you mean PruningConfig"
    ):
        dpap.Pruning  # noqa: B018


@pytest.mark.parametrize("function", [dpap.load, dpap.load_state])
def test_a_checker_keeps_the_class_of_a_network(function: object) -> None:
    hints = get_type_hints(function)
    assert hints["return"] is hints["model"]
    assert hints["model"].__bound__ is nn.Module
