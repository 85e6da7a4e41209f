"""From folders of `dpap compare` to the documentation: CSV and figures in docs/evidence, tables in the pages.

    python benchmarks/evidence.py runs/mnist_ann runs/mnist_snn runs/nmnist

In README.md, docs/results.md and docs/results/*.md, what stands between `<!-- NAME -->` and `<!-- end -->` is replaced
by the table of that name: a recipe of the comparisons, `summary`, `summary_default`, `summary_paper`, `published`,
`speed` or `legend`. A recipe that no page names gets a section in the page of its data set in docs/results, which is
made where there is none. Text around the tables stays. It may be called while runs are missing: what is finished is
shown, with its n. Runs published before and not in the folders stay, so that a comparison can be continued elsewhere;
to begin anew remove its folder from docs/evidence.
"""

import argparse
import itertools
import math
import re
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from dpap.experiment.comparing.comparison_table import HEAD as TABLE
from dpap.experiment.comparing.comparison_table import LEGEND, cells, comparison, description
from dpap.experiment.comparing.methods import DENSE, LONG
from dpap.experiment.comparing.results import EPOCHS, RESULTS, EpochResult, Line, Result, as_csv, read_csv
from dpap.experiment.comparing.significance import groups
from dpap.experiment.tables import markdown
from dpap.files import write_text
from dpap.report import write_comparison

HERE = Path(__file__).resolve().parents[1]
PUBLISHED = HERE / "benchmarks" / "published.yaml"
FIGURES = (
    "size", "accuracy", "pruning", "convergence", "weights",
    "differences-0.6", "differences-0.9", "differences-0.98", "differences-0.8-macs", "differences-0.9-parameters",
)  # fmt: skip
BLOCK = r"(?s)<!-- ([a-z_0-9]+) -->\n(.*?)\n?<!-- end -->"
HEAD = (
    "recipe", "method", "pruned", "n", "published", "ours", "difference", "ours, best test epoch", "difference",
    "to our dense twin: published", "ours",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the summaries.

    Attributes:
        title: data set and network.
        recipes: of the comparisons; a method that the first lacks is taken from the next.
        target: share that is pruned.
        target_of: what it is a share of.
        front: whether the README has it: of each network one or two.
    """

    title: str
    recipes: tuple[str, ...]
    target: float
    target_of: str = "weights"
    front: bool = False


VGG16 = "CIFAR-10 (a fifth), VGG16 of a quarter's width"
VGG16_RECIPES = ("cifar10_vgg16_float32", "cifar10_vgg16")
SUMMARY = (
    Row("MNIST, 2Conv2FC", ("mnist_ann", "mnist_ann_float32"), 0.9),
    Row("MNIST, 2Conv2FC", ("mnist_ann", "mnist_ann_float32"), 0.98, front=True),
    Row("MNIST, spiking 2Conv2FC", ("mnist_snn",), 0.9),
    Row("MNIST, spiking 2Conv2FC", ("mnist_snn_98", "mnist_snn"), 0.98, front=True),
    Row("Fashion-MNIST (a third), 2Conv2FC", ("fashion_ann",), 0.9, front=True),
    Row("Fashion-MNIST (a third), 2Conv2FC", ("fashion_ann",), 0.98),
    Row("Fashion-MNIST (a third), 2Conv2FC", ("fashion_ann",), 0.9, "parameters"),
    Row("Fashion-MNIST (a third), spiking 2Conv2FC", ("fashion_snn",), 0.9, front=True),
    Row("N-MNIST (1,100 recordings), spiking 2Conv2FC", ("nmnist_rates", "nmnist"), 0.98, front=True),
    Row("N-MNIST, 53% of the neuron-timesteps too", ("nmnist_timesteps",), 0.6201),
    Row(VGG16, VGG16_RECIPES, 0.9, front=True),
    Row(VGG16, VGG16_RECIPES, 0.98),
    Row(VGG16, VGG16_RECIPES, 0.8, "macs", front=True),
    Row(VGG16, VGG16_RECIPES, 0.9, "macs"),
    Row("CIFAR-10 (a sixth), five convolutions", ("cifar10_plain",), 0.9, front=True),
    Row("CIFAR-10 (a sixth), five convolutions", ("cifar10_plain",), 0.8, "macs"),
    Row("CIFAR-10 (a fifth), ResNet-20", ("cifar10_resnet20",), 0.9, front=True),
    Row("CIFAR-10 (a fifth), ResNet-20", ("cifar10_resnet20",), 0.8, "macs"),
    Row(
        "CIFAR-10 (a fifth), spiking 6Conv2FC of a quarter's width", ("cifar10_6conv2fc_90",), 0.9, front=True
    ),
)
"""Lines of the summaries; those of which nothing but the dense twin was measured are left out."""
LONGER = "scratch_long"
"""Has `LONG` times the epochs of the others."""
Columns = Mapping[str, tuple[str, ...]]
"""Column of a summary -> methods, the one of the highest mean of which counts."""
OURS, LAST = "dpap (default)", "small dense from scratch"
DEFAULT: Columns = {
    OURS: ("dpap",),
    "magnitude by that rule": ("global_magnitude",),
    "small dense of thrice the epochs": (LONGER,),
    LAST: ("scratch",),
}
PAPER: Columns = {
    OURS: ("dpap",),
    "paper's rule (`bcm`)": ("paper", "units_paper"),
    "`bcm_strength`": ("strength",),
    "magnitude": ("magnitude", "units_magnitude"),
    "random": ("random_once", "random", "units_random"),
}
FRONT: Columns = {
    OURS: ("dpap",),
    "magnitude (better of both rules)": DEFAULT["magnitude by that rule"] + PAPER["magnitude"],
    LAST: DEFAULT[LAST],
}
ALL: Columns = {
    **DEFAULT,
    **PAPER,
    "`taylor`": ("taylor",),
    "such widths from scratch": ("scratch_widths",),
    "Grad R": ("gradient_rewiring",),
}
"""Among these it is decided which is ahead, whatever a table shows."""
RULES = ("dpap", "paper")
"""Methods that stand beside the paper's figures."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of dpap compare")
    parser.add_argument(
        "--root", type=Path, default=HERE, help="folder of README.md and docs; default: this repository"
    )
    given = parser.parse_args()
    evidence = given.root / "docs" / "evidence"
    for folder in given.folders:
        publish(folder, evidence / folder.name)
    tables, homes = made_from(evidence)
    for path, text in written(pages(given.root), tables, homes).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(tables["summary"], tables["published"], tables["speed"], sep="\n\n")


def made_from(evidence: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Every table by its name, and the data set of every recipe, from the CSV files."""
    results = [each for path in sorted(evidence.glob(f"*/{RESULTS}")) for each in read_csv(Result, path)]
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    tables = {
        "published": beside(results, published["paper"]),
        "speed": speed(results, published["paper"]),
        "summary": summary(results, FRONT, [row for row in SUMMARY if row.front], spread=False),
        "summary_default": summary(results, DEFAULT, SUMMARY, spread=True),
        "summary_paper": summary(results, PAPER, SUMMARY, spread=True),
        "legend": LEGEND,
    }
    homes = {}
    for recipe, table in groups(results).items():
        tables[recipe] = description(table) + "\n\n" + markdown(TABLE, cells(table))
        homes[recipe] = table[0].first.data
    return tables, homes


def pages(root: Path) -> dict[Path, str]:
    """The pages that may hold tables, with their text."""
    results = root / "docs" / "results"
    paths = (root / "README.md", results.with_suffix(".md"), *sorted(results.glob("*.md")))
    return {path: path.read_text(encoding="utf-8") for path in paths}


def written(
    texts: Mapping[Path, str], tables: Mapping[str, str], homes: Mapping[str, str]
) -> dict[Path, str]:
    """The pages with every table in its place, those of `homes` in the page of their data set if nowhere else."""
    texts = dict(texts)
    named = {found[1] for text in texts.values() for found in re.finditer(BLOCK, text)}
    folder = next(path for path in texts if path.name == "results.md").with_suffix("")
    for recipe, data in homes.items():
        if recipe not in named:
            path = folder / f"{data}.md"
            text = texts.get(path, f"# {data}\n")
            texts[path] = f"{text}\n## {recipe}\n\n<!-- {recipe} -->\n<!-- end -->\n"
    return {path: filled(text, tables) for path, text in texts.items()}


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The text with every marked block replaced by its table; a block without one is left.

    Raises:
        ValueError: when a block does not end.
    """
    if text.count("<!-- end -->") != len(re.findall(BLOCK, text)):
        raise ValueError(f"expected blocks of the form {BLOCK}; found one that does not begin or end")
    return re.sub(
        BLOCK, lambda found: f"<!-- {found[1]} -->\n{tables.get(found[1], found[2])}\n<!-- end -->", text
    )


def publish(folder: Path, out: Path) -> None:
    """Add a comparison's runs to those published under its name, and draw its tables and main figures anew."""
    out.mkdir(parents=True, exist_ok=True)
    results, epochs = merged(Result, folder, out, RESULTS), merged(EpochResult, folder, out, EPOCHS)
    kinds: dict[str, set[tuple[str, str, str, int]]] = {}
    for each in results:
        epochs_of = each.epochs // LONG if each.method == LONGER else each.epochs
        kinds.setdefault(each.recipe, set()).add((each.network, each.data, each.protocol, epochs_of))
    for recipe, found in kinds.items():
        if len(found) > 1:
            raise ValueError(
                f"runs of {recipe} differ in network, data, protocol or epochs: {sorted(found)}; remove {out} "
                "to publish the new ones alone"
            )
    results = [beside_dense(each, results, epochs) for each in results]
    write_text(out / RESULTS, as_csv(Result, results))
    write_text(out / EPOCHS, as_csv(EpochResult, epochs))
    write_text(out / "comparison.md", comparison(results))
    with tempfile.TemporaryDirectory() as scratch:
        for name in (RESULTS, EPOCHS):
            shutil.copyfile(out / name, Path(scratch) / name)
        report = write_comparison(Path(scratch)).parent
        for recipe, name in itertools.product(kinds, FIGURES):
            figure = report / f"{recipe}-{name}.png"
            if figure.exists():
                shutil.copyfile(figure, out / figure.name)


def merged(kind: type[Line], folder: Path, out: Path, name: str) -> list[Line]:
    """The lines of a folder's table and those published before of other runs, dense twins first."""
    lines = read_csv(kind, folder / name)
    here = {_run(line) for line in lines}
    if (out / name).exists():
        lines += [line for line in read_csv(kind, out / name) if _run(line) not in here]
    return sorted(lines, key=lambda line: (line.recipe, line.method != DENSE))


def beside_dense(result: Result, results: Sequence[Result], epochs: Sequence[EpochResult]) -> Result:
    """The result with when it reached the best accuracy of its dense twin, which may have run elsewhere."""
    dense = [
        each
        for each in results
        if (each.recipe, each.method, each.seed) == (result.recipe, DENSE, result.seed)
    ]
    own = [each for each in epochs if _run(each) == _run(result)]
    if not dense or not own:
        return result
    converged = next((each.epoch for each in own if each.accuracy >= dense[0].best_accuracy), None)
    seconds = None
    if converged is not None:
        seconds = math.fsum(each.seconds for each in own if each.epoch <= converged)
    return replace(result, converged=converged, seconds_to_converge=seconds)


def _run(line: Result | EpochResult) -> tuple[object, ...]:
    return line.recipe, line.method, line.target, line.target_of, line.seed


def summary(results: Sequence[Result], columns: Columns, rows: Sequence[Row], *, spread: bool) -> str:
    """A Markdown table of the main accuracies, method by method, and which of all is ahead.

    Args:
        results: of all recipes.
        columns: of the table; a line that has nothing in any but the first is left out.
        rows: lines of the table.
        spread: whether n and standard deviations are shown.
    """
    lines = []
    for row in rows:
        dense = _chosen(results, row, (DENSE,))
        shown = [_chosen(results, row, methods) for methods in columns.values()]
        if not any(shown[1:]):
            continue
        share = "" if row.target_of == "weights" else f" of {row.target_of.replace('macs', 'MACs')}"
        line = [row.title, f"{row.target:.0%}{share}"]
        line += [str(len(dense))] if spread else []
        line += [_accuracy(runs, spread, dense) for runs in (dense, *shown)]
        lines.append([*line, ahead(results, row)])
    count = ["n"] if spread else []
    return markdown(("data, network", "pruned", *count, DENSE, *columns, "ahead"), lines)


def ahead(results: Sequence[Result], row: Row) -> str:
    """The method of the highest mean, and all that tie with it, by their columns."""
    runs = {column: _chosen(results, row, methods) for column, methods in ALL.items()}
    measured = {column: own for column, own in runs.items() if own}
    # as one comparison, so that ties are decided as in its table
    together = [replace(each, recipe=row.title) for own in measured.values() for each in own]
    best = {group.first.method for group in groups(together)[row.title] if group.best}
    words = [column.partition(" (")[0] for column, own in measured.items() if own[0].method in best]
    if 1 < len(words) == len(measured):
        return "all tie"
    return ", ".join(words) + (" (a tie)" if len(words) > 1 else "")


def _chosen(results: Sequence[Result], row: Row, methods: Sequence[str]) -> list[Result]:
    """The runs of the method of the highest mean at the row's target, each from the first recipe that has it."""
    target = (None, "weights") if methods == (DENSE,) else (row.target, row.target_of)
    found: dict[str, list[Result]] = {}
    for recipe, method in itertools.product(row.recipes, methods):
        own = [
            each
            for each in results
            if (each.recipe, each.method, each.target, each.target_of) == (recipe, method, *target)
        ]
        if own:
            found.setdefault(method, own)
    return max(found.values(), key=_mean, default=[])


def _mean(runs: Sequence[Result]) -> float:
    return 100 * statistics.fmean(each.accuracy for each in runs)


def _accuracy(runs: Sequence[Result], spread: bool, dense: Sequence[Result]) -> str:
    if not runs:
        return "not measured"
    text = f"{_mean(runs):.2f}"
    if spread and len(runs) > 1:
        text += f" ± {100 * statistics.stdev(each.accuracy for each in runs):.2f}"
    elsewhere = bool(dense) and runs[0].recipe != dense[0].recipe
    return text + (" †" if runs[0].method == "random" else "") + (" ‡" if elsewhere else "")


def beside(results: Sequence[Result], published: Mapping[str, Any]) -> str:
    """A Markdown table of every published accuracy that a run has a counterpart of."""
    lines = []
    for recipe, paper in published.items():
        dense = {each.seed: each for each in results if (each.recipe, each.method) == (recipe, DENSE)}
        rows = [(None, DENSE, paper["dense"])]
        rows += [(target, rule, best) for target, best in paper["pruned"].items() for rule in RULES]
        for target, method, accuracy in rows:
            own = [
                each
                for each in results
                if (each.recipe, each.method, each.target, each.target_of)
                == (recipe, method, target, "weights")
            ]
            if not own:
                continue
            ours, best = (100 * statistics.fmean(values) for values in zip(
                *((each.accuracy, each.best_accuracy) for each in own), strict=True
            ))  # fmt: skip
            gain = ["", ""]
            pairs = [100 * (each.accuracy - dense[each.seed].accuracy) for each in own if each.seed in dense]
            if target is not None and pairs:
                gain = [f"{accuracy - paper['dense']:+.2f}", f"{statistics.fmean(pairs):+.2f}"]
            lines.append([
                recipe, method, "0" if target is None else f"{target:.2%}", str(len(own)), f"{accuracy:.2f}",
                f"{ours:.2f}", f"{ours - accuracy:+.2f}", f"{best:.2f}", f"{best - accuracy:+.2f}", *gain,
            ])  # fmt: skip
    return markdown(HEAD, lines)


def speed(results: Sequence[Result], published: Mapping[str, Any]) -> str:
    """A Markdown table of the epochs until the dense twin's best test accuracy is reached, and the wall time."""
    lines = []
    for (recipe, method, target), own in _by_rule(results).items():
        paper = published.get(recipe, {}).get("epochs")
        dense = {each.seed: each for each in results if (each.recipe, each.method) == (recipe, DENSE)}
        own = [each for each in own if each.seed in dense]
        if not own:
            continue
        reached = [each for each in own if each.converged is not None]
        epochs = statistics.fmean(dense[each.seed].converged or 0 for each in own)
        times = [
            each.seconds_to_converge / dense[each.seed].seconds_to_converge
            for each in reached
            if each.seconds_to_converge is not None and dense[each.seed].seconds_to_converge
        ]
        lines.append([
            recipe, method, target, str(len(own)), f"{paper[0]} -> {paper[1]}" if paper else "", f"{epochs:.1f}",
            f"{len(reached)} of {len(own)}",
            f"{statistics.fmean(each.converged or 0 for each in reached):.1f}" if reached else "",
            f"{statistics.fmean(times):.2f}" if times else "",
            f"{statistics.fmean(each.seconds / dense[each.seed].seconds for each in own):.2f}",
        ])  # fmt: skip
    head = (
        "recipe", "method", "pruned", "n", "epochs, published", "dense, epochs to its best", "reaches it", "epochs",
        "time to it, of dense", "whole run, of dense",
    )  # fmt: skip
    return markdown(head, lines)


def _by_rule(results: Sequence[Result]) -> dict[tuple[str, str, str], list[Result]]:
    """The runs of RULES by recipe, method and target in words, in this order."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    recipes = list(dict.fromkeys(each.recipe for each in results))
    own = [each for each in results if each.method in RULES]
    own.sort(key=lambda each: (
        recipes.index(each.recipe), RULES.index(each.method), each.target_of != "weights", each.target or 0.0
    ))  # fmt: skip
    for each in own:
        share = "" if each.target_of == "weights" else f" of {each.target_of.replace('_', ' ')}"
        target = "" if each.target is None else f"{each.target:.2%}{share}"
        found.setdefault((each.recipe, each.method, target), []).append(each)
    return found


if __name__ == "__main__":
    main()
