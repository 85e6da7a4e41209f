"""A comparison in words and numbers: the tables of comparison.md, the terminal and the report."""

from collections.abc import Callable, Sequence

from dpap.experiment.comparing.grid import target_words
from dpap.experiment.comparing.results import Result
from dpap.experiment.comparing.significance import Difference, Group, groups
from dpap.experiment.formatting import PICO, quantity
from dpap.experiment.records import PROTOCOLS
from dpap.experiment.tables import markdown

HEAD = (
    "method", "target", "n", "accuracy %", "to dense", "verdict", "pruned %", "parameters", "weights", "MACs",
    "syn. ops", "energy", "counted", "latency", "training",
)  # fmt: skip
LEGEND = (
    "Means ± standard deviations over n seeds; one seed, the same batches for every method, and the same initial "
    "weights for all that are pruned. To dense: accuracy less that of the dense twin of the same seed, in points. "
    "Verdict: a tie where the 95% t-interval of these differences holds 0. Best, marked \\*: the highest mean "
    "accuracy of its target and all that tie with it, paired in the same way; † pruned less than its target, and is "
    "not ranked. Parameters are stored, weights are not zero; costs are per sample. Energy by (14), (15); counted: of "
    "the operations that are done. Training: seconds, as a share of the dense twin's."
)


def comparison(results: Sequence[Result], unfinished: Sequence[str] = ()) -> str:
    """A Markdown document with one table a recipe.

    Args:
        results: of the finished runs.
        unfinished: one line for each run that is missing.
    """
    parts = ["# Comparison"]
    for recipe, table in groups(results).items():
        parts += [f"## {recipe}", description(table), markdown(HEAD, cells(table))]
    parts.append(LEGEND if results else "No run is finished yet.")
    if unfinished:
        parts += ["## Not finished", "\n".join(f"- {line}" for line in unfinished)]
    return "\n\n".join(parts) + "\n"


def description(table: Sequence[Group]) -> str:
    """What all runs of a recipe share, and the protocol by which its accuracies were taken."""
    first = table[0].first
    protocols = dict.fromkeys(each.protocol for group in table for each in group.results)
    of = dict.fromkeys(each.target_of for group in table for each in group.results if each.target is not None)
    targets = f" Targets are shares of the {' and '.join(of).replace('_', ' ')}." if of else ""
    taken = "; ".join(f"{name}: test accuracy of {PROTOCOLS[name]}" for name in protocols)
    return f"`{first.network}` on {first.data}, {first.epochs} epochs. Protocol {taken}.{targets}"


def cells(table: Sequence[Group]) -> list[list[str]]:
    """The lines of a recipe's table below HEAD."""
    return [_cells(group) for group in table]


def _cells(group: Group) -> list[str]:
    first, numbers = group.first, group.mean
    pruned = _spread(group, lambda run: 100 * run.sparsity, 1) + (" †" if group.missed else "")
    if any(run.timestep_sparsity for run in group.results):
        pruned += f"; timesteps {100 * numbers(lambda run: run.timestep_sparsity):.1f}"
    return [
        first.method + (" \\*" if group.best else ""),
        target_words(*group.target, " ").strip(),
        str(len(group.results)),
        _spread(group, lambda run: 100 * run.accuracy, 2),
        "" if group.to_dense is None else points(group.to_dense),
        "" if group.to_dense is None else group.to_dense.verdict,
        pruned,
        f"{numbers(lambda run: run.parameters):,.0f}",
        f"{numbers(lambda run: run.weights):,.0f}",
        f"{numbers(lambda run: run.macs):,.0f}",
        f"{numbers(lambda run: run.synaptic_operations):,.0f}",
        quantity(numbers(lambda run: run.energy), "J"),
        quantity(numbers(lambda run: run.picojoules) * PICO, "J"),
        quantity(numbers(lambda run: run.latency_seconds), "s"),
        "" if group.time is None else f"{group.time:.0%}",
    ]


def points(gain: Difference) -> str:
    """A difference of accuracies in percentage points: +0.52 ± 0.11."""
    mean = f"{100 * gain.mean:+.2f}"
    return mean if gain.deviation is None else f"{mean} ± {100 * gain.deviation:.2f}"


def _spread(group: Group, value: Callable[[Result], float], digits: int) -> str:
    mean, deviation = f"{group.mean(value):.{digits}f}", group.deviation(value)
    return mean if deviation is None else f"{mean} ± {deviation:.{digits}f}"
