"""What `dpap evaluate` prints."""

from dpap.experiment.formatting import accuracy, count, loss, quantity
from dpap.experiment.sealed import Record
from dpap.experiment.tables import text_table

KIB = 1024


def evaluation_text(record: Record) -> str:
    """The record of `evaluate_run` as tables that fit into 80 columns, and notes."""
    parts = [_head(record), _scores(record)]
    if record["latency"]:
        parts += [_latency(record), _explained(record)]
    notes = [f"note: {each}" for each in record["notes"]]
    notes += [f"left out: {what}: {why}" for what, why in record["left_out"].items()]
    return "\n\n".join([*filter(None, parts), *(["\n".join(notes)] if notes else [])])


def _head(record: Record) -> str:
    spiking = f"spiking, T = {record['timesteps']}" if record["spiking"] else "not spiking"
    return f"{record['run']}: {record['network']}, {spiking}, {count(record['parameters'])} parameters"


def _scores(record: Record) -> str:
    rows = [
        [
            each["network"],
            each["runtime"],
            accuracy(each["accuracy"]),
            loss(each["loss"]),
            f"{each['bytes'] / KIB:,.0f}",
        ]
        for each in record["scores"]
    ]
    if not rows:
        return ""
    samples, recorded = record["scores"][0]["samples"], record["recorded_accuracy"]
    end = f"; the run recorded an accuracy of {accuracy(recorded)}" if recorded is not None else ""
    table = text_table(["network", "runs in", "accuracy", "loss", "KiB"], rows)
    return f"{table}\n\non {samples:,} test samples of {record['data']}{end}"


def _latency(record: Record) -> str:
    rows = [
        [
            each["network"],
            each["runtime"],
            str(each["batch"]),
            quantity(each["milliseconds"] / 1e3, "s"),
            f"{each['samples_per_second']:,.0f}",
            f"{each['speed_up']:.2f}×",
            "{:.2f}-{:.2f}".format(*each["speed_up_quartiles"]),
        ]
        for each in record["latency"]
    ]
    return text_table(["network", "runs in", "batch", "time", "samples/s", "speed-up", "quartiles"], rows)


def _explained(record: Record) -> str:
    first, machine = record["latency"][0], record["machine"]
    text = (
        f"medians of {first['rounds']} rounds in which all took turns; speed-up: over {first['network']}, "
        f"{first['runtime']}, within a round\n"
        f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores"
    )
    if machine["device"] != "cpu":
        text += f"; PyTorch on {machine['device']}"
    if any(each["network"] == "dense" for each in record["latency"]):
        text += "\nthe dense network is untrained, for its time alone; the silenced one has the removed units as zeros"
    return text
