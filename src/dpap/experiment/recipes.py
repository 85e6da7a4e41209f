"""The recipes that come with dpap: configurations, and grids of comparisons, in the package's folder `recipes`."""

from collections.abc import Sequence
from importlib.resources import files
from itertools import takewhile
from pathlib import Path

import yaml

from dpap.experiment.errors import UserError
from dpap.spelling import suggestion

FOLDER = Path(str(files("dpap") / "recipes"))
GRIDS = FOLDER / "grids"


def list_recipes() -> list[Path]:
    """The files of the recipes; the stem of each is its name."""
    return sorted(FOLDER.glob("*.yaml"))


def list_grids() -> list[Path]:
    """The files of the grids; the stem of each is its name."""
    return sorted(GRIDS.glob("*.yaml"))


def recipe_path(given: str) -> Path:
    """The file of a recipe, given by its path, or by its name where it comes with dpap.

    Raises:
        UserError: when there is neither.
    """
    if Path(given).is_file():
        return Path(given)
    return _named(given, list_recipes(), "file or recipe", "dpap recipes lists those that come with dpap")


def grid_path(given: str) -> Path:
    """The file of a grid, given by its path, or by its name where it comes with dpap.

    Raises:
        UserError: when there is neither.
    """
    if Path(given).exists():
        return Path(given)
    return _named(given, list_grids(), "file or grid", "dpap recipes lists the grids that come with dpap")


def recipe_of_row(given: str, folder: Path) -> Path:
    """The file of the recipe that a row of a grid names: one below the grid's folder, or one that comes with dpap.

    Raises:
        UserError: when there is neither.
    """
    path = folder / given
    if path.exists():
        return path
    recipes = list_recipes()
    advice = f"a row names a file below {folder} or one of {', '.join(_names(recipes))}"
    return _named(given, recipes, "file or recipe", advice)


def own_recipe(path: Path) -> str:
    """The end of a message about a configuration file that is missing, where a recipe has its name; else nothing."""
    if path.stem in _names(list_recipes()):
        return f"; the recipe of that name comes with dpap: --recipe {path.stem}"
    return ""


def recipe_or_grid(name: str) -> Path:
    """The file of a recipe or grid that comes with dpap.

    Raises:
        UserError: when there is none of that name.
    """
    return _named(name, [*list_recipes(), *list_grids()], "recipe or grid", "dpap recipes lists them")


def comment(path: Path) -> str:
    """What a file is: the comment at its head, as one line, up to the command in it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    words = takewhile(lambda line: line.startswith("# ") and not line.startswith("#  "), lines)
    return " ".join(line.removeprefix("# ") for line in words).rstrip(":")


def settings(path: Path) -> str:
    """The data, the network and the target of a recipe, in a line."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    network, pruning = values["network"], values["pruning"]
    target = f", {pruning['target']:.0%} of the weights" if "target" in pruning else ""
    return f"{values['data']['name']}, {network['layers']} ({network['neuron']}){target}"


def _named(name: str, paths: Sequence[Path], what: str, advice: str) -> Path:
    names = _names(paths)
    if name not in names:
        raise UserError(f"there is no {what} {name!r}{suggestion(Path(name).stem, names) or '; ' + advice}")
    return names[name]


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    return {path.stem: path for path in paths}
