"""What a run did, in sentences."""

from dataclasses import dataclass

from dpap.experiment.formatting import accuracy, duration, percent, quantity, ratio, rounded
from dpap.experiment.records import PROTOCOLS
from dpap.report.records import Run


def reported_accuracy(run: Run) -> float | None:
    """Test accuracy of the network that the protocol reports."""
    if run.summary is not None and run.summary.final_test_accuracy is not None:
        return run.summary.final_test_accuracy
    return run.reported.test_accuracy if run.reported else None


def reported_sparsity(run: Run) -> float | None:
    """Share of the weights that are dead in the network that the protocol reports."""
    if run.summary is not None and run.summary.sparsity is not None:
        return run.summary.sparsity
    return run.reported.sparsity if run.reported else None


def protocol(run: Run) -> str | None:
    """The protocol, and the network that it reports."""
    network = PROTOCOLS.get(run.protocol or "")
    return run.protocol if network is None else f"{run.protocol}: {network}"


def machine(run: Run) -> str:
    """What the run was computed on."""
    parts = []
    for key, value in run.machine.items():
        if isinstance(value, bool):
            parts.append(key if value else f"no {key}")
        elif value is not None:
            parts.append(f"{value}" if key == "cpu" else f"{key} {value}")
    return ", ".join(parts)


def training_seconds(run: Run) -> float | None:
    """Seconds spent training, over all epochs."""
    if run.summary is not None and run.summary.seconds_training is not None:
        return run.summary.seconds_training
    seconds = [epoch.seconds for epoch in run.epochs if epoch.seconds is not None]
    return sum(seconds) if seconds else None


def headline(run: Run) -> str:
    """What died and what is reached, from recorded numbers only."""
    if run.last is None and run.summary is None:
        return "The run has started, and no epoch is finished yet."
    reached, sparsity = reported_accuracy(run), reported_sparsity(run)
    result = "test accuracy is not recorded" if reached is None else f"test accuracy is {accuracy(reached)}"
    if reached is not None and run.twin is not None and (dense := reported_accuracy(run.twin)) is not None:
        result += f", against {accuracy(dense)} of its dense twin"
    if not run.prunes or sparsity is None:
        sentences = [f"A dense network, nothing pruned: {result}."]
    else:
        died = f"{percent(sparsity)} of the weights died while the network learned"
        steps = run.reported.timestep_sparsity if run.reported else None
        died += f", and {percent(steps)} of the neuron-timesteps" if steps else ""
        sentences = [f"{died}; {result}."]
    if run.last is None:
        sentences.append("What it recorded of its epochs, metrics.jsonl, is missing.")
    elif run.summary is None:
        sentences.append(f"State after epoch {run.last.epoch}; the run is not finished.")
    return " ".join(sentences)


def trained_operations(run: Run) -> float | None:
    """Synaptic operations of the dense twin; an untrained network's do not compare with a trained one's."""
    summary = run.twin.summary if run.twin is not None else None
    return summary.after.synaptic_operations if summary is not None and summary.after is not None else None


def lead(run: Run) -> str:
    """What the compact network costs, from recorded numbers only; empty where that was not measured."""
    if not run.prunes or run.summary is None or run.summary.before is None or run.summary.after is None:
        return ""
    before, after = run.summary.before, run.summary.after
    parts = []
    if after.parameters is not None and before.parameters:
        parts.append(f"{rounded(after.parameters)} of {rounded(before.parameters)} parameters")
    if after.synaptic_operations is not None and (dense := trained_operations(run)):
        parts.append(f"{ratio(after.synaptic_operations, dense)} the synaptic operations of its twin")
    elif after.macs is not None and before.macs:
        parts.append(f"{ratio(after.macs, before.macs)} the multiply-accumulates")
    return f"The compact network has {' and '.join(parts)}." if parts else ""


@dataclass(frozen=True)
class Latency:
    """The latency of the compact network beside the dense one's, both measured in turn; as text.

    Attributes:
        ratio: "same" where the quartiles of both overlap.
        own, dense: medians.
        sentence: the comparison, and why it is no smaller.
    """

    ratio: str
    own: str
    dense: str
    sentence: str


def latency(run: Run) -> Latency | None:
    """None where nothing was pruned, and of runs that recorded no spread: by a single number nothing compares."""
    if not run.prunes or run.summary is None or run.summary.before is None or run.summary.after is None:
        return None
    before, after = run.summary.before, run.summary.after
    old, new = ((cost.latency_low, cost.latency_seconds, cost.latency_high) for cost in (before, after))
    if None in old or None in new:
        return None
    (old_low, old_middle, old_high), (new_low, new_middle, new_high) = (
        [value for value in times if value is not None] for times in (old, new)
    )
    same = max(old_low, new_low) <= min(old_high, new_high)
    share = new_middle / old_middle if old_middle else 1.0
    medians = f"{quantity(new_middle, 's')} beside {quantity(old_middle, 's')}"
    if same:
        sentence = (
            f"One sample takes the dense network’s time, within the spread of the measurement ({medians})"
        )
    elif share < 1:
        sentence = (
            f"One sample takes {ratio(new_middle, old_middle)} the time of the dense network ({medians})"
        )
    else:
        sentence = (
            f"One sample takes longer, {ratio(new_middle, old_middle)} the dense network’s time ({medians})"
        )
    if after.macs is not None and before.macs and (1.0 if same else share) > after.macs / before.macs:
        sentence += (
            f", with {ratio(after.macs, before.macs)} the multiply-accumulates: in a batch of one, part of the time "
            "goes into starting each operation, and pruning leaves as many of them"
        )
    return Latency(
        "same" if same else ratio(new_middle, old_middle), quantity(new_middle, "s"),
        quantity(old_middle, "s"), f"{sentence}.",
    )  # fmt: skip


def convergence(run: Run) -> str | None:
    """Convergence speed as in the paper: the first epoch that reaches the dense network's best accuracy."""
    dense = (
        [(e.epoch, e.test_accuracy) for e in run.twin.epochs if e.test_accuracy is not None]
        if run.twin
        else []
    )
    if not dense:
        return None
    best = max(value for _, value in dense)
    twin = next(epoch for epoch, value in dense if value == best)
    own = (e.epoch for e in run.epochs if e.test_accuracy is not None and e.test_accuracy >= best)
    first = next(own, None)
    reached = f"reached in epoch {first}" if first is not None else "not reached"
    return f"dense twin’s best, {accuracy(best)} in its epoch {twin}: {reached}"


def convergence_sentence(run: Run) -> str:
    """`convergence` as a caption."""
    sentence = convergence(run)
    return f"The {sentence}." if sentence else ""


def epochs(run: Run) -> str:
    """How many epochs are recorded."""
    return f"{len(run.epochs)} epoch{'' if len(run.epochs) == 1 else 's'}"


def sample(run: Run) -> str:
    """The sample whose spikes are drawn, and what of them is not."""
    if run.spikes is None:
        return ""
    name = "The compact network" if run.prunes else "The network"
    label = "" if run.spikes.label is None else f", of class {run.spikes.label}"
    text = f"{name} on the first test sample{label}, over {run.spikes.timesteps} timesteps."
    shown = max((len(row) for layer in run.spikes.layers for row in layer.rows.values()), default=0)
    if shown < run.spikes.timesteps:
        text += f" The first {shown} timesteps are drawn."
    if len(run.spikes.layers) < run.spikes.total_layers:
        text += f" The first {len(run.spikes.layers)} of {run.spikes.total_layers} layers are drawn."
    return text


def time_sentence(run: Run) -> str:
    """What training took, and what share of a run's time went into pruning itself."""
    total = training_seconds(run)
    if total is None:
        return ""
    sentence = f"Training took {duration(total)}"
    if run.twin is not None and (dense := training_seconds(run.twin)) is not None:
        sentence += f", the dense twin’s {duration(dense)} ({epochs(run.twin)})"
    pruning = sum(epoch.prune_seconds or 0.0 for epoch in run.epochs)
    if pruning:
        sentence += f"; deciding and removing at the end of the epochs took {duration(pruning)} more"
    return sentence + "."
