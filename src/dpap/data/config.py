"""Which data a run uses, and how it is split and batched."""

from dataclasses import dataclass, field
from typing import Literal

Plain = bool | int | float | str | list | dict | None
"""A value of an argument as YAML has it. Of `Any`, the parser of the command would import and call any class that a
file names as `class_path`."""


@dataclass(frozen=True)
class DataConfig:
    """The choice of a data set.

    The order in which a set is cut: folds, then limits, then validation.

    Attributes:
        name: a name of `list_datasets()`, or "package.module:factory" for a data set of your own.
        root: folder that holds the data sets; None takes the environment variable DPAP_DATA.
        timesteps: frames that a recording of events is binned to. Images have no time.
        batch_size: samples of a training batch.
        test_batch_size: samples of a validation or test batch.
        augment: random shifts (and mirroring where it keeps the class) of the training samples.
        randaugment: mean magnitude, from 0 (off) to 10, of two random operations on each training image: colours,
            contrast, rotation and the like (RandAugment). For images of 1 or 3 channels of bytes.
        erase: probability that a random rectangle of a training image becomes noise (random erasing), in [0, 1].
        normalise: subtract the mean and divide by the deviation of the published training set, per channel.
            For ordinary networks; spiking networks take values in [0, 1] as currents.
        validation: share of the training samples held out, stratified, in [0, 1).
        train_limit: number of training samples kept, stratified. None keeps all.
        test_limit: number of test samples kept, stratified. None keeps all.
        folds: parts that training and test samples together are cut into; 0 keeps the published split.
        fold: the part that is the test set, from 0, when there are folds.
        workers: processes that load a data set of your own. Built-in sets lie in memory and need none.
        split_seed: decides which samples are in a validation set, a limit or a fold.
        cache: folder for binned events; None is $XDG_CACHE_HOME/dpap, else ~/.cache/dpap.
        frames: "counts" gives the number of events, "binary" whether there was any.
        downsample: factor by which the sensor's sides shrink, summing events; None is the data set's own
            (N-MNIST 1, DVS-Gesture 4).
        arguments: keyword arguments for the factory of a data set of your own.
    """

    name: str = "digits"
    root: str | None = None
    timesteps: int = 8
    batch_size: int = 64
    test_batch_size: int = 256
    augment: bool = False
    randaugment: float = 0.0
    erase: float = 0.0
    normalise: bool = False
    validation: float = 0.0
    train_limit: int | None = None
    test_limit: int | None = None
    folds: int = 0
    fold: int = 0
    workers: int = 0
    split_seed: int = 0
    cache: str | None = None
    frames: Literal["counts", "binary"] = "counts"
    downsample: int | None = None
    arguments: dict[str, Plain] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("timesteps", "batch_size", "test_batch_size", "train_limit", "test_limit", "downsample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation is a share of the training set, in [0, 1); got {self.validation}")
        if not 0 <= self.randaugment <= 10:
            raise ValueError(f"randaugment is a magnitude, in [0, 10]; got {self.randaugment}")
        if not 0 <= self.erase <= 1:
            raise ValueError(f"erase is a probability, in [0, 1]; got {self.erase}")
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"folds must be 0 (the published split) or at least 2; got {self.folds}")
        if not 0 <= self.fold < max(self.folds, 1):
            raise ValueError(f"fold counts from 0 to folds - 1; got fold={self.fold}, folds={self.folds}")
        if self.workers < 0:
            raise ValueError(f"workers must be 0 or more; got {self.workers}")
        if self.frames not in ("counts", "binary"):
            raise ValueError(f'frames is "counts" or "binary"; got {self.frames!r}')
