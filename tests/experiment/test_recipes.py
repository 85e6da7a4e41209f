from pathlib import Path

import pytest
import torch

from dpap.anatomy import find_wiring
from dpap.data import list_datasets
from dpap.experiment.config import load_config
from dpap.experiment.demo import demo_config
from dpap.experiment.errors import UserError
from dpap.experiment.recipes import (
    comment,
    grid_path,
    list_grids,
    list_recipes,
    recipe_of_row,
    recipe_or_grid,
    recipe_path,
    settings,
)
from dpap.models import build_network
from dpap.pruning.config import PruningConfig

RECIPES = list_recipes()
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
    assert settings(path).startswith(f"{config.data.name}, {config.network.layers} ({config.network.neuron})")
    assert ("% of the weights" in settings(path)) is (config.pruning.target is not None)
    assert config.pruning.target_of == "weights"
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


def test_the_demonstration_is_a_recipe() -> None:
    assert demo_config() == load_config(recipe_path("digits_snn"))


def test_recipes_and_grids_are_found_by_name() -> None:
    assert [recipe_path(path.stem) for path in RECIPES] == RECIPES
    assert [recipe_or_grid(path.stem) for path in list_grids()] == [
        grid_path(path.stem) for path in list_grids()
    ]
    names = [path.stem for path in [*RECIPES, *list_grids()]]
    assert len(set(names)) == len(names)
    with pytest.raises(UserError, match="no file or recipe 'mnist_sn_2fc'; did you mean mnist_snn_2fc"):
        recipe_path("mnist_sn_2fc")
    with pytest.raises(UserError, match="no file or recipe '12'; dpap recipes lists"):
        recipe_path("12")


def test_every_file_says_what_it_is() -> None:
    for path in [*RECIPES, *list_grids()]:
        words = comment(path)
        assert words and not words.endswith(":") and "recipes/" not in words
    assert comment(recipe_path("mnist_snn_2fc")).startswith("Table I, MNIST, SNN 2FC. Published: 98.81")


def test_a_row_that_names_nothing_is_told_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no file or recipe 'sub/digits_sn\.yaml'; did you mean digits_snn\?"
    ):
        recipe_of_row("sub/digits_sn.yaml", tmp_path)
    with pytest.raises(
        UserError, match=rf"'12'; a row names a file below {tmp_path} or one of .*digits_snn, "
    ):
        recipe_of_row("12", tmp_path)


def test_a_file_comes_before_a_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe_of_row("digits_snn", tmp_path) == recipe_path("digits_snn")
    (tmp_path / "digits_snn").touch()
    assert recipe_of_row("digits_snn", tmp_path) == tmp_path / "digits_snn"
    monkeypatch.chdir(tmp_path)
    assert grid_path("digits") != Path("digits")
    Path("digits").touch()
    assert grid_path("digits") == Path("digits")
    assert recipe_path("digits_snn") == Path("digits_snn")


def test_a_missing_file_that_a_recipe_has_the_name_of() -> None:
    with pytest.raises(
        UserError, match=r"no configuration file elsewhere/digits_snn.yaml; .* --recipe digits_snn"
    ):
        load_config("elsewhere/digits_snn.yaml")
