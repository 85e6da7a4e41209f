"""All that a run needs of its data."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dpap.data.config import DataConfig
from dpap.data.partition import fold, share
from dpap.data.registry import DATASETS
from dpap.data.split import Split
from dpap.data.user import count_classes, names_of, read_user
from dpap.spelling import suggestion


@dataclass(frozen=True)
class DataBundle:
    """A data set, cut into its splits.

    Attributes:
        name: as configured.
        train, validation, test: the splits; validation is None where none is held out.
        input_shape: (C, H, W) of a sample, at one time where there are events.
        classes: number of classes.
        events: whether x has time first: [T, B, C, H, W].
        timesteps: T of events, None for images.
        notes: how the data differs from the whole published set.
        class_names: of the classes in their order; none where they are called by their numbers.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split
    input_shape: tuple[int, int, int]
    classes: int
    events: bool
    timesteps: int | None
    notes: tuple[str, ...]
    class_names: tuple[str, ...] = ()

    def describe(self) -> str:
        """A few readable lines: shape, classes, sizes, and the differences from the published set."""
        channels, height, width = self.input_shape
        kind = f"events in {self.timesteps} frames of" if self.events else "images of"
        sizes = [f"{len(self.train)} training", f"{len(self.test)} test"]
        if self.validation is not None:
            sizes.insert(1, f"{len(self.validation)} validation")
        lines = [
            f"{self.name}: {kind} {channels}x{height}x{width}, {self.classes} classes",
            f"samples: {', '.join(sizes)}",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    @property
    def splits(self) -> list[Split]:
        """Those that there are."""
        return [split for split in (self.train, self.validation, self.test) if split is not None]

    @property
    def nbytes(self) -> int:
        """Bytes of the samples that are held in memory, or in mapped files."""
        held = {id(one): one for split in self.splits for one in split.held()}
        return sum(one.nbytes for one in held.values())

    def to(self, device: torch.device) -> "DataBundle":
        """The same samples; what is held in memory lies on the device, where batches are then cut and augmented."""
        moved: dict[int, Tensor] = {}
        validation = None if self.validation is None else self.validation.to(device, moved)
        train, test = self.train.to(device, moved), self.test.to(device, moved)
        return replace(self, train=train, validation=validation, test=test)


def load_data(config: DataConfig) -> DataBundle:
    """Read a data set and cut it: folds, then limits, then validation.

    Raises:
        FileNotFoundError: a folder or file is missing.
        ValueError: a file is damaged, the name is unknown, or an option does not fit the data.
        TypeError: a data set of the user's own does not keep its contract.
    """
    notes: list[str] = []
    train: Split
    test: Split
    if ":" in config.name:
        own_train, own_test = read_user(config)
        classes, names = count_classes(own_train, own_test), names_of(own_train)
        sample = own_train.sample_shape
        if own_test.sample_shape != sample:
            raise ValueError(
                f"training and test samples must have one shape; "
                f"got {list(sample)} and {list(own_test.sample_shape)}"
            )
        events, timesteps = len(sample) == 4, sample[0] if len(sample) == 4 else None
        shape = (sample[-3], sample[-2], sample[-1])
        train, test = own_train, own_test
    elif config.name in DATASETS:
        source = DATASETS[config.name]
        if config.arguments:
            raise ValueError(
                f"arguments are for a data set of your own; {config.name} got {config.arguments}"
            )
        if config.normalise and source.statistics is None:
            raise ValueError(f"normalise is for images; the frames of {config.name} are counts of events")
        read_train, read_test = source.reader(source, config)
        shape = (source.shape[0], read_train.data.shape[-2], read_train.data.shape[-1])
        classes, events, names = source.classes, source.events, source.class_names
        timesteps = config.timesteps if events else None
        found = (len(read_train), len(read_test))
        if found != source.published:
            notes.append(
                f"{found[0]} + {found[1]} samples of the published "
                f"{source.published[0]} + {source.published[1]}"
            )
        train, test = read_train, read_test
    else:
        raise ValueError(
            f'the data set is one of {", ".join(DATASETS)}, or "package.module:factory"; got {config.name!r}'
            f"{suggestion(config.name, DATASETS)}"
        )
    train, validation, test, cuts = _cut(train, test, config)
    return DataBundle(
        config.name, train, validation, test, shape, classes, events, timesteps, (*notes, *cuts), names
    )


def _cut(train: Split, test: Split, config: DataConfig) -> tuple[Split, Split | None, Split, list[str]]:
    """Training, validation and test set, and notes on what was cut; only the training set is augmented."""
    notes, seed = [], config.split_seed
    if config.folds:
        pool = train.join(test)
        inside, outside = fold(pool.labels, config.folds, config.fold, seed)
        train, test = pool.subset(outside), pool.subset(inside)
        notes.append(
            f"fold {config.fold} of {config.folds} over training and test samples together, seed {seed}"
        )
    if config.train_limit is not None and config.train_limit < len(train):
        train = train.subset(share(train.labels, config.train_limit, seed)[0])
        notes.append(f"training samples limited to {config.train_limit}, stratified, seed {seed}")
    if config.test_limit is not None and config.test_limit < len(test):
        test = test.subset(share(test.labels, config.test_limit, seed)[0])
        notes.append(f"test samples limited to {config.test_limit}, stratified, seed {seed}")
    validation: Split | None = None
    held_out = round(config.validation * len(train))
    if config.validation and not 0 < held_out < len(train):
        raise ValueError(
            f"a validation share of {config.validation} holds out {held_out} of {len(train)} "
            "training samples; both parts need at least one"
        )
    if held_out:
        chosen, rest = share(train.labels, held_out, seed)
        validation, train = train.subset(chosen).plain(), train.subset(rest)
        notes.append(f"validation: {held_out} of the training samples held out, stratified, seed {seed}")
    return train, validation, test.plain(), notes


def check_data(config: DataConfig) -> str:
    """Read everything once and report it: sizes, samples of each class, range and mean of the values.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `load_data`; ValueError also where a value is not
            finite, a label lies outside of the classes or a batch has another shape than promised.
    """
    bundle = load_data(config)
    lines = [bundle.describe()]
    for name, split in (("training", bundle.train), ("validation", bundle.validation), ("test", bundle.test)):
        if split is None:
            continue
        counts = torch.zeros(bundle.classes, dtype=torch.long)
        low, high, total, values = float("inf"), -float("inf"), 0.0, 0
        for x, y in split.batches(config.test_batch_size):
            if tuple(x.shape[-3:]) != bundle.input_shape:
                raise ValueError(f"{name} samples must be {bundle.input_shape}; got {tuple(x.shape[-3:])}")
            if not x.isfinite().all():
                raise ValueError(f"{name} samples must be finite; got infinite or undefined values")
            if y.min() < 0 or y.max() >= bundle.classes:
                raise ValueError(
                    f"{name} labels must lie in 0 to {bundle.classes - 1}; "
                    f"got {int(y.min())} to {int(y.max())}"
                )
            counts += torch.bincount(y, minlength=bundle.classes)
            low, high = min(low, float(x.min())), max(high, float(x.max()))
            total, values = total + float(x.sum(dtype=torch.float64)), values + x.numel()
        lines.append(
            f"{name}: {len(split)} samples, of each class {counts.tolist()}; "
            f"values {low:.4g} to {high:.4g}, mean {total / values:.4f}"
        )
    return "\n".join(lines)
