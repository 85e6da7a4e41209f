"""The examples in docstrings run, and every public name has one."""

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

import dpap
from dpap import baselines, metrics, models, spiking
from dpap.plasticity.criteria import CRITERIA

SOURCE = Path(dpap.__file__).parent
PUBLIC = [
    *(getattr(dpap, name) for name in dpap.__all__),
    *(dpap.Pruner.load_state_dict, dpap.PruningConfig.released),
    *(spiking.IF, spiking.LIF, spiking.PLIF, spiking.FoldTime, spiking.over_time),
    *(spiking.ArcTan, spiking.Sigmoid, spiking.Triangle),
    models.build_network,
    *(each for name in metrics.__all__ if inspect.isfunction(each := getattr(metrics, name))),
    *(baselines.GradualMagnitude, baselines.GradientRewiring),
]


def _examples() -> Iterator[doctest.DocTest]:
    """Every docstring with an example, of the modules that have any."""
    for path in sorted(SOURCE.rglob("*.py")):
        if ">>>" in path.read_text(encoding="utf-8"):
            inside = path.relative_to(SOURCE).with_suffix("").parts
            module = importlib.import_module(".".join(("dpap", *inside)).removesuffix(".__init__"))
            yield from (test for test in doctest.DocTestFinder().find(module) if test.examples)


EXAMPLES = list(_examples())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_shows_what_happens(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output: list[str] = []
    with patch.dict(CRITERIA):
        failed, _ = doctest.DocTestRunner(verbose=False).run(example, out=output.append)
    assert not failed, "".join(output)


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__qualname__)
def test_a_public_name_has_an_example(public: type) -> None:
    assert f"{public.__module__}.{public.__qualname__}" in {example.name for example in EXAMPLES}
