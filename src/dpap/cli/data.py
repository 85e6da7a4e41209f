"""`dpap data`."""

from dataclasses import fields

from jsonargparse import ArgumentParser, Namespace

from dpap.data import DataConfig, check_data, list_datasets
from dpap.experiment.errors import blame


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument(
        "set", nargs="?", help="name of a data set, or package.module:factory; none lists them"
    )
    parser.add_class_arguments(DataConfig, None, skip={"name"})


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """List the data sets, or check one."""
    if given.set is None:
        for source in list_datasets():
            print(f"{source.name}\n  {source.what}\n  {source.homepage}\n  {source.layout}")
        return
    with blame("the data"):
        values = {field.name: given[field.name] for field in fields(DataConfig) if field.name != "name"}
        print(check_data(DataConfig(name=given.set, **values)))
