"""Numbers as people write them, and what a run did in sentences."""

import math

from dpap.report.records import Run

ABSENT = "–"
Number = int | float | None


def percent(share: Number, decimals: int = 1) -> str:
    """0.601 -> 60.1%."""
    return ABSENT if share is None or math.isnan(share) else f"{100 * share:.{decimals}f}%"


def accuracy(share: Number) -> str:
    """0.982 -> 98.20%."""
    return percent(share, 2)


def loss(value: Number) -> str:
    """0.06213 -> 0.0621."""
    return ABSENT if value is None or math.isnan(value) else f"{value:.4f}"


def count(value: Number) -> str:
    """596535 -> 596,535."""
    return ABSENT if value is None or math.isnan(value) else f"{value:,.0f}"


def rounded(value: Number) -> str:
    """596535 -> 597k."""
    if value is None or math.isnan(value):
        return ABSENT
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.0f}"


def scaled(value: Number, unit: str) -> str:
    """0.0012 s -> 1.20 ms."""
    if value is None or math.isnan(value):
        return ABSENT
    for size, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:#.3g}".rstrip(".") + f" {prefix}{unit}"
    return f"{value:g} {unit}"


def duration(seconds: Number) -> str:
    """4000 -> 1 h 7 min."""
    if seconds is None or math.isnan(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def ratio(after: Number, before: Number) -> str:
    """(21, 60) -> 0.35×."""
    if after is None or not before or math.isnan(after / before):
        return ABSENT
    return f"{after / before:.2g}×" if after / before < 0.1 else f"{after / before:.2f}×"


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
    """What the protocol's name means."""
    meanings = {
        "last": "last: the network after the last epoch is reported",
        "validation": "validation: the epoch that was best on the validation split is reported",
        "paper": "paper: the epoch that was best on the test split is reported, as the paper’s tables do; "
        "such a choice flatters the result",
    }
    return meanings.get(run.protocol or "", run.protocol)


def training_seconds(run: Run) -> float | None:
    """Seconds spent training, over all epochs."""
    if run.summary is not None and run.summary.seconds_training is not None:
        return run.summary.seconds_training
    seconds = [epoch.seconds for epoch in run.epochs if epoch.seconds is not None]
    return sum(seconds) if seconds else None


def headline(run: Run) -> str:
    """The result in one or two sentences, from recorded numbers only."""
    if run.last is None:
        return "The run has started, and no epoch is finished yet."
    reached, sparsity = reported_accuracy(run), reported_sparsity(run)
    number = f"test accuracy is {accuracy(reached)}"
    if reached is None:
        number = "test accuracy is not recorded"
    elif run.twin is not None and (dense := reported_accuracy(run.twin)) is not None:
        number += f", against {accuracy(dense)} of its dense twin"
    if not run.prunes or sparsity is None:
        sentences = [f"A dense network, nothing pruned: {number}."]
    else:
        died = f"{percent(sparsity)} of the weights died while the network learned"
        steps = run.reported.timestep_sparsity if run.reported else None
        died += f", and {percent(steps)} of the neuron-timesteps" if steps else ""
        sentences = [f"{died}; {number}."]
        if shrunk := _shrunk(run):
            sentences.append(shrunk)
    if run.summary is None:
        sentences.append(f"State after epoch {run.last.epoch}; the run is not finished.")
    return " ".join(sentences)


def trained_operations(run: Run) -> float | None:
    """Synaptic operations of the dense twin: spikes of a trained network compare with no untrained one's."""
    summary = run.twin.summary if run.twin is not None else None
    return summary.after.synaptic_operations if summary is not None and summary.after is not None else None


def _shrunk(run: Run) -> str:
    if run.summary is None or run.summary.before is None or run.summary.after is None:
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


def convergence(run: Run) -> str | None:
    """The paper's convergence speed: the first epoch that reaches the dense network's best accuracy."""
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
