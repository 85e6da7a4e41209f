"""DVS-Gesture: eleven gestures of 29 people (Amir et al. 2017, doi 10.1109/CVPR.2017.781)."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpap.data.aedat import read_aedat
from dpap.data.config import DataConfig
from dpap.data.events import Frames, blank_frames, count_events, event_split
from dpap.data.source import Source
from dpap.data.split import TensorSplit
from dpap.data.transform import Augmentation

SIDE = 128
TRIALS = 256
"""So many trials a recording may have; the published ones have a dozen."""
LATEST = 1 << 48
"""Microseconds, nine years: products with the number of timesteps stay far below 2^63."""
COLUMNS = ["class", "startTime_usec", "endTime_usec"]


@dataclass(frozen=True)
class Trial:
    """One gesture of a recording: its class from 0, and [begin, end) in microseconds."""

    label: int
    begin: int
    end: int


def read_trials(path: Path, source: Source) -> list[Trial]:
    """The rows of a *_labels.csv, whose classes count from 1.

    Raises:
        FileNotFoundError, ValueError: the file is missing, a column is, or a row is wrong.
    """
    try:
        rows = list(csv.reader(source.read_text(path).splitlines()))
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({error}); {source.advice}") from error
    if not rows or [name.strip() for name in rows[0]] != COLUMNS:
        raise ValueError(
            f"{path} must start with the line {','.join(COLUMNS)}; got {rows[:1]}; {source.advice}"
        )
    trials = []
    for row in filter(None, rows[1:]):
        try:
            number, begin, end = (int(value) for value in row)
        except ValueError as error:
            raise ValueError(
                f"{path} must have three whole numbers a row; got {row}; {source.advice}"
            ) from error
        if not (1 <= number <= source.classes and 0 <= begin < end <= LATEST):
            raise ValueError(
                f"{path} must have classes from 1 to {source.classes} that end after they start, both from 0 to "
                f"{LATEST} microseconds; got {row}; {source.advice}"
            )
        trials.append(Trial(number - 1, begin, end))
    if len(trials) > TRIALS:
        raise ValueError(f"{path} must have at most {TRIALS} trials; got {len(trials)}; {source.advice}")
    return trials


def cut_trials(path: Path, trials: list[Trial], source: Source, timesteps: int, downsample: int) -> Frames:
    """Frames of each trial of one recording, binned over the time of its label.

    Raises:
        ValueError: an event lies outside of the 128x128 pixels, or no trial has events.
    """
    frames = np.stack([blank_frames(timesteps, SIDE, SIDE, downsample) for _ in trials]) if trials else ()
    empty = True
    for events in read_aedat(path):
        events.check_pixels(source, path)
        for trial, counted in zip(trials, frames, strict=True):
            inside = events.between(trial.begin, trial.end)
            empty = empty and len(inside) == 0
            count_events(counted, inside, trial.begin, trial.end, downsample)
    if trials and empty:
        raise ValueError(f"{path} has no event in any trial of its labels: the two do not belong together")
    yield from frames


def labels_of(path: Path) -> Path:
    """The file that says when each gesture of a recording begins and ends."""
    return path.with_name(f"{path.stem}_labels.csv")


def binned_trials(source: Source, config: DataConfig, path: Path) -> Frames:
    """The samples of a file: its trials where its labels lie beside it, else the whole of it as one.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged, or has no event.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {source.advice}")
    labelled = labels_of(path)
    trials = read_trials(labelled, source) if labelled.is_file() else [_whole(path, source)]
    yield from cut_trials(path, trials, source, config.timesteps, config.downsample or source.downsample)


def _whole(path: Path, source: Source) -> Trial:
    """A recording from its first to its last event, both included; of no known class."""
    spans = [(int(each.time.min()), int(each.time.max())) for each in read_aedat(path) if len(each)]
    if not spans:
        raise ValueError(f"{path} must hold at least one event; got none; {source.advice}")
    begin, end = min(first for first, _ in spans), max(last for _, last in spans) + 1
    if not 0 <= begin < end <= LATEST:
        raise ValueError(f"{path} must have times from 0 to {LATEST} microseconds; got {begin} to {end - 1}")
    return Trial(0, begin, end)


def _read_part(source: Source, config: DataConfig, folder: Path, part: str) -> TensorSplit:
    listed = source.read_text(folder / part).split()
    recordings = [folder / line for line in listed]
    label_files = [labels_of(path) for path in recordings]
    for path in recordings:
        if not path.is_file():
            raise FileNotFoundError(f"{path}, listed in {part}, is missing; {source.advice}")
    trials = [read_trials(path, source) for path in label_files]
    labels = [trial.label for group in trials for trial in group]
    if not labels:
        raise ValueError(f"{folder / part} must list recordings with trials; got none; {source.advice}")
    downsample = config.downsample or source.downsample

    def build() -> Frames:
        for path, group in zip(recordings, trials, strict=True):
            yield from cut_trials(path, group, source, config.timesteps, downsample)

    return event_split(source, config, folder, [*recordings, *label_files], labels, build)


def read_gesture(source: Source, config: DataConfig) -> tuple[TensorSplit, TensorSplit]:
    """Trials of the recordings that trials_to_train.txt and trials_to_test.txt list."""
    folder = source.find(config, ["DvsGesture", "extract/DvsGesture", "."], "trials_to_train.txt")
    train, test = (_read_part(source, config, folder, f"trials_to_{part}.txt") for part in ("train", "test"))
    return train, test


DVS_GESTURE = Source(
    name="dvs_gesture",
    what="eleven hand gestures seen by an event camera, 128x128, two polarities",
    homepage="https://research.ibm.com/interactive/dvsgesture",
    layout="trials_to_{train,test}.txt, *.aedat (AEDAT 3.1) and *_labels.csv in ROOT/DvsGesture, "
    "ROOT/extract/DvsGesture or ROOT",
    shape=(2, SIDE, SIDE),
    classes=11,
    published=(1176, 288),
    events=True,
    augmentation=Augmentation(pad=2, flip=False),  # mirroring would turn a left hand into a right one
    reader=read_gesture,
    downsample=4,
    class_names=(
        "hand clapping",
        "right hand wave",
        "left hand wave",
        "right arm clockwise",
        "right arm counter-clockwise",
        "left arm clockwise",
        "left arm counter-clockwise",
        "arm roll",
        "air drums",
        "air guitar",
        "other gestures",
    ),
    recordings={".aedat": binned_trials},
)
