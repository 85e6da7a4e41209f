"""The table of costs: the network that a run kept beside the dense one, and one unit a group of lines."""

from collections.abc import Callable
from dataclasses import dataclass

from dpap.experiment import formatting
from dpap.report import words
from dpap.report.records import Cost, Run


@dataclass(frozen=True)
class Row:
    """One quantity, as text: the values stand below `head`."""

    name: str
    note: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Quantities that belong together."""

    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Quantity:
    name: str
    note: str
    of: Callable[[Cost], float | None]
    write: Callable[[float | None], str]
    of_spikes: bool = False


def _joules(value: float | None) -> str:
    return formatting.quantity(value, "J")


def _picojoules(value: float | None) -> str:
    return _joules(None if value is None else value * formatting.PICO)


GROUPS = {
    "Size": (
        _Quantity("Parameters", "stored", lambda cost: cost.parameters, formatting.count),
        _Quantity("Weights", "not zero", lambda cost: cost.weights, formatting.count),
    ),
    "Products of an input and a weight, one sample": (
        _Quantity("Multiply-accumulates", "zeros counted", lambda cost: cost.macs, formatting.count),
        _Quantity(
            "Synaptic operations", "neither is zero",
            lambda cost: cost.synaptic_operations, formatting.count, of_spikes=True,
        ),
    ),
    "The same by adding one spike at a time, one sample": (
        _Quantity(
            "Additions", "an input that counts several spikes takes one for each",
            lambda cost: cost.accumulates, formatting.count, of_spikes=True,
        ),
        _Quantity(
            "Multiplications", "where the input is analogue, each with an addition",
            lambda cost: cost.multiplies, formatting.count, of_spikes=True,
        ),
        _Quantity(
            "Energy, counted", "of these two, 45 nm", lambda cost: cost.picojoules, _picojoules, of_spikes=True
        ),
    ),
    "As the paper estimates it, one sample": (
        _Quantity("Energy, by (14), (15)", "", lambda cost: cost.energy, _joules),
    ),
}  # fmt: skip
"""What is counted the same way stands in one group: numbers of different groups are not parts of each other.

Costs that depend on spikes (`of_spikes`) are those of trained networks: an untrained one fires differently.
"""


def head(run: Run) -> tuple[str, ...]:
    """The names of the columns of values."""
    if not run.prunes:
        return ("this network",)
    return ("dense twin" if run.twin else "dense, untrained", "compact", "ratio")


def introduction(run: Run) -> str:
    """What is compared with what."""
    if not run.prunes:
        return "Of the trained network; nothing was removed."
    text = "The compact network, the dead removed, beside "
    if _trained(run):
        text += "its dense twin, trained in the same way."
    else:
        text += (
            "the dense network before training. Learning changes how often neurons fire, so what depends on spikes "
            "has no ratio: it compares only with a trained network’s."
        )
    return text


def groups(run: Run) -> list[Group]:
    """The lines of the table, of what was measured."""
    before, after = (run.summary.before, run.summary.after) if run.summary else (None, None)
    if before is None and after is None:
        return []
    twin = _trained(run)
    table = []
    for name, quantities in GROUPS.items():
        rows = []
        for each in quantities:
            dense = before if twin is None else twin
            old, new = (None if cost is None else each.of(cost) for cost in (dense, after))
            if old is None and new is None:
                continue
            comparable = twin is not None or not each.of_spikes
            ratio = formatting.ratio(new, old) if comparable else formatting.ABSENT
            values = (each.write(old), each.write(new), ratio) if run.prunes else (each.write(new),)
            rows.append(Row(each.name, each.note, values))
        table.append(Group(name, tuple(rows)))
    table.append(_time(run, before, after))
    return [group for group in table if group.rows]


def _trained(run: Run) -> Cost | None:
    """The costs of the dense twin."""
    return run.twin.summary.after if run.twin is not None and run.twin.summary is not None else None


def _time(run: Run, before: Cost | None, after: Cost | None) -> Group:
    """Latency beside that of the dense network which was measured in turn with it, not of the twin's own run."""
    old, new = (None if cost is None else cost.latency_seconds for cost in (before, after))
    rows = []
    if old is not None or new is not None:
        compared = words.latency(run)
        note = "median; dense: untrained, measured in turn" if run.prunes else "median"
        if run.prunes and compared is None:
            note = "measured at another moment, spread not recorded: no ratio"
        ratio = formatting.ABSENT if compared is None else compared.ratio
        values = [formatting.quantity(value, "s") for value in (old, new)]
        rows.append(Row("Latency", note, (*values, ratio) if run.prunes else (values[1],)))
    return Group("Time of one sample, a batch of one", tuple(rows))
