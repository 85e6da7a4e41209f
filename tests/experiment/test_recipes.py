from pathlib import Path

import pytest
import torch

from dpap.anatomy import find_wiring
from dpap.data import list_datasets
from dpap.experiment.config import load_config
from dpap.experiment.demo import demo_config
from dpap.models import build_network
from dpap.pruning.config import PruningConfig

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SHAPES = {
    "digits": (1, 8, 8),
    "mnist": (1, 28, 28),
    "fashion_mnist": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "nmnist": (2, 34, 34),
    "dvs_gesture": (2, 32, 32),
}
CLASSES = {"dvs_gesture": 11}


def test_the_recipes_are_there() -> None:
    assert len(RECIPES) >= 10
    sources = {source.name: source for source in list_datasets()}
    assert sources.keys() == SHAPES.keys()
    assert all(sources[name].classes == CLASSES.get(name, 10) for name in sources)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_a_network_that_can_be_pruned(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert config.prune
    assert config.pruning != PruningConfig()
    shape, classes = SHAPES[config.data.name], CLASSES.get(config.data.name, 10)
    model = build_network(config.network, shape, classes)
    events = config.data.name in ("nmnist", "dvs_gesture")
    x = torch.rand(2, 1, *shape) if events else torch.rand(1, *shape)
    wiring = find_wiring(model.eval(), (x,))
    weighty = [
        name for name, module in model.named_modules() if hasattr(module, "weight") and module.weight.ndim > 1
    ]
    assert list(wiring.layers) == weighty
    assert [str(wiring).count(name) > 0 for name in weighty] == [True] * len(weighty)
    with torch.no_grad():
        assert model(x).shape == (1, classes)


def test_the_demonstration_is_the_first_recipe() -> None:
    recipe = next(path for path in RECIPES if path.stem == "digits_snn")
    assert demo_config() == load_config(recipe)
