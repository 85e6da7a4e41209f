"""What a run did, in sentences."""

from dpap.experiment.formatting import accuracy, duration, percent, ratio, rounded
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
        if compact := _compact(run):
            sentences.append(compact)
    if run.summary is None:
        sentences.append(f"State after epoch {run.last.epoch}; the run is not finished.")
    return " ".join(sentences)


def trained_operations(run: Run) -> float | None:
    """Synaptic operations of the dense twin; an untrained network's do not compare with a trained one's."""
    summary = run.twin.summary if run.twin is not None else None
    return summary.after.synaptic_operations if summary is not None and summary.after is not None else None


def _compact(run: Run) -> str:
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
