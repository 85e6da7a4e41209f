"""The classes that a run's compact network finds in files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dpap.data.kind import SampleKind, kind_of
from dpap.data.single import Sample, SingleFiles
from dpap.experiment.config import TrainingConfig
from dpap.experiment.errors import UserError, explained
from dpap.experiment.machine import repeatable
from dpap.experiment.sealed import Record
from dpap.experiment.using.deployed import deploy, read_config, read_data
from dpap.experiment.using.kept import finished

PROBABILITY, RATE = "probability", "rate"


def predict_run(
    path: Path,
    given: Sequence[Path],
    *,
    resize: bool = False,
    batch: int | None = None,
    allow_imports: bool = False,
    device: str | None = None,
) -> Record:
    """Classify files by a run's compact network; what cannot be read is named, and the others are classified.

    Args:
        path: the run folder, of which the configuration and the model file are read.
        given: files, and folders of files.
        resize: bring pictures to the size that the network takes.
        batch: samples at a time; None is as many as in the run's evaluation.
        allow_imports: import the data set of its own that the run may name.
        device: where the network runs; None is where the run did, or what there is.

    Returns:
        Plain values, which `dpap predict --json` writes.

    Raises:
        UserError: where there is no finished run, or no file.
    """
    if batch is not None and batch < 1:
        raise UserError(f"--batch must be at least 1; got {batch}")
    folder = finished(path)
    stored, config = read_config(folder, {}, allow_imports=allow_imports)
    kind = kind_of(config.data) or SampleKind.of(read_data(stored.data, config.data)[0])
    reader = SingleFiles(kind, config.data, resize)
    files, others = reader.listed(given)
    if not files:
        raise UserError(
            f"{', '.join(map(str, given))}: no file within that ends in {', '.join(reader.endings)}"
        )
    failed: list[Record] = []
    notes: Counter[str] = Counter()
    predictions: list[Record] = []
    with repeatable(config.training.threads), torch.no_grad():
        run = deploy(folder, config, kind, device)
        for samples in _batches(_readable(reader, files, failed), batch or config.data.test_batch_size):
            x = torch.stack([each.x for each in samples], 0 if kind.timesteps is None else 1).to(run.device)
            scores = _scores(run.model(x), config.training).cpu()
            if not scores.isfinite().all():
                raise UserError(
                    f"the network: {folder.model} returns infinite or undefined numbers for {samples[0].file}"
                )
            predictions += [
                _predicted(*each, kind, config.training) for each in zip(samples, scores, strict=True)
            ]
            notes.update(note for each in samples for note in each.notes)
    return {
        "run": str(path),
        "data": kind.name,
        "class_names": [kind.name_of(number) for number in range(kind.classes)],
        "files": len(files),
        "predictions": predictions,
        "failed": failed,
        "passed_over": others,
        "notes": dict(notes),
    }


def score_name(training: TrainingConfig) -> str:
    """What a network's outputs stand for: of a loss of firing rates they are rates."""
    return RATE if training.loss == "rate_mse" else PROBABILITY


def _scores(outputs: Tensor, training: TrainingConfig) -> Tensor:
    return outputs if score_name(training) == RATE else outputs.softmax(1)


def _predicted(sample: Sample, scores: Tensor, kind: SampleKind, training: TrainingConfig) -> Record:
    best = int(scores.argmax())
    name = score_name(training)
    return {
        "file": sample.file,
        "class": best,
        "name": kind.name_of(best),
        name: float(scores[best]),
        f"{name}_by_class": scores.tolist(),
        "notes": list(sample.notes),
    }


def _readable(reader: SingleFiles, files: Sequence[Path], failed: list[Record]) -> Iterator[Sample]:
    """The samples of the files that can be read; the others are added to `failed`."""
    for path in files:
        try:
            yield from reader.read(path)
        except OSError as error:
            failed.append({"file": str(path), "why": explained(error).removeprefix(f"{path}: ")})
        except ValueError as error:
            failed.append({"file": str(path), "why": str(error).removeprefix(f"{path} ")})


def _batches(samples: Iterator[Sample], size: int) -> Iterator[list[Sample]]:
    held: list[Sample] = []
    for sample in samples:
        held.append(sample)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held
