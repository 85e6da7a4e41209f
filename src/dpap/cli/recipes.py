"""`dpap recipes`."""

import textwrap

from jsonargparse import ArgumentParser, Namespace

from dpap.experiment.recipes import comment, list_grids, list_recipes, recipe_or_grid, settings


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument("name", nargs="?", help="of a recipe or grid, which is printed; none lists them")


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """List the recipes and grids, or print the file of one."""
    if given.name is not None:
        print(recipe_or_grid(given.name).read_text(encoding="utf-8"), end="")
        return
    print("recipes, for --recipe NAME:")
    for path in list_recipes():
        print(f"  {path.stem}: {settings(path)}")
        print(_indented(comment(path)))
    print("\ngrids, for dpap compare --grid NAME:")
    for path in list_grids():
        print(f"  {path.stem}")
        print(_indented(comment(path)))


def _indented(text: str) -> str:
    return textwrap.fill(text, width=100, initial_indent=" " * 6, subsequent_indent=" " * 6)
