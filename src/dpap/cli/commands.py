"""What each subcommand is called, takes and does, for its help; `dpap.cli.NAME` is its module."""

from typing import NamedTuple


class Command(NamedTuple):
    """A subcommand's help.

    Attributes:
        takes: its usage line, without its name.
        text: what it does, in a sentence.
        example: a call.
    """

    takes: str
    text: str
    example: str


COMMANDS = {
    "demo": Command(
        "[--out FOLDER] [--seed N] [--overwrite] [--quiet]",
        "Train a dense and a pruned twin on embedded digits, in two minutes.",
        "dpap demo",
    ),
    "train": Command(
        "[--config FILE | --recipe NAME] [--FIELD VALUE ...] [--overwrite] [--quiet] | --resume RUN",
        "Train one network, pruning it while it learns; or go on with a run that stopped.",
        "dpap train --recipe digits_snn --pruning.target 0.7 --out runs/mine",
    ),
    "compare": Command(
        "[--config FILE | --recipe NAME | --grid FILE] [--FIELD VALUE ...] [--methods LIST] [--targets LIST] "
        "[--seeds LIST]",
        "Train a recipe by several methods, over targets and seeds, beside dense twins; the same command goes on.",
        "dpap compare --recipe digits_snn --methods '[dpap, magnitude]' --targets '[0.5, 0.7]'",
    ),
    "report": Command(
        "RUN [RUN ...] [--out FOLDER]",
        "Write figures and an HTML page from what a run, or a comparison, recorded; of several runs, side by side.",
        "dpap report runs/mine; dpap report runs/mine runs/other",
    ),
    "evaluate": Command(
        "RUN [--data.FIELD VALUE ...] [--batches LIST] [--rounds N] [--runtimes LIST] [--json FILE]",
        "Score the network that a run kept, and time it beside the dense one, in PyTorch, in onnxruntime, in 8 bits.",
        "dpap evaluate runs/mine --data.root ~/data --json mine.json",
    ),
    "export": Command(
        "RUN --to onnx|nir|plain|hub [--step] [--out FILE] [--samples N] [--data.root FOLDER]",
        "Write the network that a run kept for other programs, and compare the file with PyTorch on test samples.",
        "dpap export runs/mine --to onnx",
    ),
    "predict": Command(
        "RUN FILE ... [--resize] [--batch N] [--json FILE] [--csv FILE]",
        "Name the class of files, or of all files in folders, by the network that a run kept.",
        "dpap predict runs/mine photos/ digit.png --csv classes.csv",
    ),
    "inspect": Command(
        "[--config FILE | --recipe NAME] [--FIELD VALUE ...]",
        "Show the wiring and the cost of a network without training it.",
        "dpap inspect --recipe digits_snn --network.width 2",
    ),
    "recipes": Command(
        "[NAME]",
        "List the recipes and grids that come with dpap, or print one, to be changed and given as --config.",
        "dpap recipes; dpap recipes digits_snn > mine.yaml",
    ),
    "data": Command(
        "[NAME] [--download] [--root FOLDER] [--FIELD VALUE ...]",
        "List the data sets, or read one through and say what is in it; --download gets its files first.",
        "dpap data; dpap data mnist --download --root ~/data",
    ),
}
