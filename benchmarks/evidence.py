"""From folders of `dpap compare` to docs/evidence: tables, CSV and figures, and all that was published beside it.

    python benchmarks/evidence.py runs/mnist_ann runs/mnist_snn runs/nmnist

What stands between `<!-- NAME -->` and `<!-- end -->` in docs/results.md is replaced by the table of that name: a
recipe of the comparisons, `published` or `speed`. It may be called while runs are missing: what is finished is shown,
with its n. Runs published before and not in the folders stay, so that a comparison can be continued elsewhere; to begin
anew remove its folder from docs/evidence.
"""

import argparse
import itertools
import re
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dpap.experiment.comparison_table import HEAD as TABLE
from dpap.experiment.comparison_table import cells, comparison, description, markdown
from dpap.experiment.methods import DENSE
from dpap.experiment.results import EPOCHS, RESULTS, EpochResult, Line, Result, as_csv, read_csv
from dpap.experiment.run_folder import write_text
from dpap.experiment.significance import groups
from dpap.report import write_comparison

HERE = Path(__file__).resolve().parents[1]
PUBLISHED = HERE / "benchmarks" / "published.yaml"
FIGURES = (
    "accuracy", "pruning", "convergence", "weights",
    "differences-0.6", "differences-0.9", "differences-0.98", "differences-0.8-macs", "differences-0.9-parameters",
)  # fmt: skip
BLOCK = r"(?s)<!-- ([a-z_0-9]+) -->\n(.*?)\n?<!-- end -->"
HEAD = (
    "recipe", "pruned", "n", "published", "ours", "difference", "ours, best test epoch", "difference",
    "to our dense twin: published", "ours",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of dpap compare")
    parser.add_argument("--out", type=Path, default=HERE / "docs" / "evidence", help="default: docs/evidence")
    parser.add_argument(
        "--page", type=Path, default=HERE / "docs" / "results.md", help="default: docs/results.md"
    )
    given = parser.parse_args()
    for folder in given.folders:
        publish(folder, given.out / folder.name)
    results = [each for path in sorted(given.out.glob(f"*/{RESULTS}")) for each in read_csv(Result, path)]
    published = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    tables = {"published": beside(results, published), "speed": speed(results, published)}
    for recipe, table in groups(results).items():
        tables[recipe] = description(table) + "\n\n" + markdown(TABLE, cells(table))
    given.page.write_text(filled(given.page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    print(tables["published"], tables["speed"], sep="\n\n")


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
        kinds.setdefault(each.recipe, set()).add((each.network, each.data, each.protocol, each.epochs))
    for recipe, found in kinds.items():
        if len(found) > 1:
            raise ValueError(
                f"runs of {recipe} differ in network, data, protocol or epochs: {sorted(found)}; remove {out} "
                "to publish the new ones alone"
            )
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


def _run(line: Result | EpochResult) -> tuple[object, ...]:
    return line.recipe, line.method, line.target, line.target_of, line.seed


def beside(results: Sequence[Result], published: Mapping[str, Any]) -> str:
    """A Markdown table of every published accuracy that a run has a counterpart of."""
    lines = []
    for recipe, paper in published.items():
        dense = {each.seed: each for each in results if (each.recipe, each.method) == (recipe, DENSE)}
        for target, accuracy in ((None, paper["dense"]), *paper["dpap"].items()):
            method = DENSE if target is None else "dpap"
            own = [
                each
                for each in results
                if (each.recipe, each.method, each.target) == (recipe, method, target)
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
                recipe, "0" if target is None else f"{target:.2%}", str(len(own)), f"{accuracy:.2f}", f"{ours:.2f}",
                f"{ours - accuracy:+.2f}", f"{best:.2f}", f"{best - accuracy:+.2f}", *gain,
            ])  # fmt: skip
    return markdown(HEAD, lines)


def speed(results: Sequence[Result], published: Mapping[str, Any]) -> str:
    """A Markdown table of the epochs until the dense twin's best test accuracy is reached, and the wall time."""
    lines = []
    for recipe in dict.fromkeys(each.recipe for each in results):
        paper = published.get(recipe, {}).get("epochs")
        dense = {each.seed: each for each in results if (each.recipe, each.method) == (recipe, DENSE)}
        for target in sorted(
            {each.target for each in results if each.recipe == recipe and each.method == "dpap"}
        ):
            own = [
                each for each in results
                if (each.recipe, each.method, each.target) == (recipe, "dpap", target) and each.seed in dense
            ]  # fmt: skip
            reached = [each for each in own if each.converged is not None]
            epochs = statistics.fmean(dense[each.seed].converged or 0 for each in own)
            times = [
                each.seconds_to_converge / dense[each.seed].seconds_to_converge
                for each in reached
                if each.seconds_to_converge is not None and dense[each.seed].seconds_to_converge
            ]
            lines.append([
                recipe, f"{target:.2%}", str(len(own)), f"{paper[0]} -> {paper[1]}" if paper else "", f"{epochs:.1f}",
                f"{len(reached)} of {len(own)}",
                f"{statistics.fmean(each.converged or 0 for each in reached):.1f}" if reached else "",
                f"{statistics.fmean(times):.2f}" if times else "",
                f"{statistics.fmean(each.seconds / dense[each.seed].seconds for each in own):.2f}",
            ])  # fmt: skip
    head = (
        "recipe", "pruned", "n", "epochs, published", "dense, epochs to its best", "DPAP reaches it", "epochs",
        "time to it, of dense", "whole run, of dense",
    )  # fmt: skip
    return markdown(head, lines)


if __name__ == "__main__":
    main()
