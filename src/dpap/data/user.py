"""A data set of the user's own, by import path."""

import importlib
import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from dpap.data.config import DataConfig
from dpap.data.split import Split, batched_order, part_of

CONTRACT = "a data set needs __len__ and __getitem__(i) -> (tensor, class number)"


def import_factory(path: str) -> Any:
    """The object at "package.module:name".

    Raises:
        ValueError: the path is not of that form, or the module cannot be imported or lacks the name.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f'a data set of your own is named "package.module:factory"; got {path!r}')
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a user's module may fail in any way
        own = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        where = (
            "; put the folder that it lies in on PYTHONPATH, such as PYTHONPATH=. for this one" if own else ""
        )
        raise ValueError(f"{path!r} cannot be imported: {type(error).__name__}: {error}{where}") from error
    if not callable(found):
        raise ValueError(
            f"{path!r} must be a function or class that makes a data set; got {type(found).__name__}"
        )
    return found


def _takes_train(factory: Any) -> bool:
    parameters = inspect.signature(factory).parameters.values()
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (parameter.name == "train" and parameter.kind is not parameter.POSITIONAL_ONLY)
        for parameter in parameters
    )


def make_datasets(path: str, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Training and test set from a factory.

    A factory that accepts `train` is called with train=True, then with train=False; any other is called
    once and returns the pair (training set, test set).

    Raises:
        ValueError: the import or the call fails.
        TypeError: what comes back is no data set.
    """
    factory = import_factory(path)
    try:
        if _takes_train(factory):
            made: Any = (factory(**arguments, train=True), factory(**arguments, train=False))
        else:
            made = factory(**arguments)
    except Exception as error:
        raise ValueError(
            f"{path!r} called with {arguments} failed: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(made, tuple | list) and len(made) == 2):
        raise TypeError(
            f"{path!r} accepts no argument `train`, so it must return (training set, test set); "
            f"got {type(made).__name__}"
        )
    for dataset in made:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(f"{path!r} made a {type(dataset).__name__}; {CONTRACT}")
        if len(dataset) == 0:
            raise ValueError(f"{path!r} made an empty data set; it needs at least one sample")
    return made[0], made[1]


@contextmanager
def kept_random_numbers() -> Iterator[None]:
    """Puts the random states of torch (CPU), numpy and Python back at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@dataclass(frozen=True)
class SeededSamples(Dataset[tuple[Any, int]]):
    """Fetches a sample while the random numbers of torch, numpy and Python come from a seed of its own,
    so that a user's augmentation neither depends on nor disturbs the run, whatever the number of workers.
    """

    dataset: Any

    def _fetch(self, position: int, seed: int) -> tuple[Any, int]:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs too
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        x, y = self.dataset[position]
        return x, int(y)

    def __getitem__(self, chosen: tuple[int, int]) -> tuple[Any, int]:
        with kept_random_numbers():
            return self._fetch(*chosen)

    def __getitems__(self, batch: list[tuple[int, int]]) -> list[tuple[Any, int]]:
        """The samples of (position, seed) pairs, at once: keeping the random states takes 0.4 ms."""
        with kept_random_numbers():
            return [self._fetch(*chosen) for chosen in batch]

    @cached_property
    def labels(self) -> Int64[Tensor, "all"]:
        """The attribute `targets` (torchvision's convention), else found by fetching every sample."""
        targets = getattr(self.dataset, "targets", None)
        if targets is None:
            with kept_random_numbers():
                targets = [self._fetch(position, 0)[1] for position in range(len(self.dataset))]
        if len(targets) != len(self.dataset):
            raise ValueError(
                f"`targets` must name {len(self.dataset)} classes, one a sample; got {len(targets)}"
            )
        return torch.as_tensor(targets).long()


@dataclass(frozen=True)
class UserSplit(Split):
    """Samples of a user's data set, loaded by torch's DataLoader.

    Attributes:
        samples: items are (float tensor [C, H, W] or, of events, [T, C, H, W]; class number).
        index: the samples that belong to this split.
        workers: processes that load; they start anew for every pass.
    """

    samples: SeededSamples
    index: Int64[Tensor, "sample"]
    workers: int

    @classmethod
    def of(cls, dataset: Any, workers: int) -> "UserSplit":
        """A split of all samples."""
        return cls(SeededSamples(dataset), torch.arange(len(dataset)), workers)

    @property
    def labels(self) -> Int64[Tensor, "sample"]:
        return self.samples.labels[self.index]

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of the first sample.

        Raises:
            TypeError: it is not a floating-point tensor.
            ValueError: it is neither [C, H, W] nor [T, C, H, W].
        """
        x, _ = self.samples[int(self.index[0]), 0]
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"samples must be floating-point tensors; got {kind}; {CONTRACT}")
        if x.dim() not in (3, 4):
            raise ValueError(f"samples must be [C, H, W] or, of events, [T, C, H, W]; got {list(x.shape)}")
        return tuple(x.shape)

    def subset(self, index: Int64[Tensor, "chosen"]) -> "UserSplit":
        return replace(self, index=self.index[index])

    def join(self, other: "UserSplit") -> "UserSplit":
        joined: Any = ConcatDataset([self.samples.dataset, other.samples.dataset])
        joined.targets = torch.cat([self.samples.labels, other.samples.labels])
        index = torch.cat([self.index, other.index + len(self.samples.dataset)])
        return UserSplit(SeededSamples(joined), index, self.workers)

    def plain(self) -> "UserSplit":
        return self

    def __len__(self) -> int:
        return len(self.index)

    def _iterate(
        self, batch_size: int, shuffle_seed: int | None, drop_last: bool, part: tuple[int, int]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0 if shuffle_seed is None else shuffle_seed)
        order = batched_order(len(self), batch_size, None if shuffle_seed is None else generator, drop_last)
        seeds = torch.randint(2**31, (len(self),), generator=generator)
        own = [part_of(positions, part) for positions in order]
        sampler = [
            list(zip(self.index[each].tolist(), seeds[each].tolist(), strict=True))
            for each in own
            if len(each)
        ]
        loader = DataLoader(
            self.samples, batch_sampler=sampler, num_workers=self.workers, generator=generator
        )
        for x, y in loader:
            yield (x.float().transpose(0, 1).contiguous() if x.dim() == 5 else x.float()), y.long()


def read_user(config: DataConfig) -> tuple[UserSplit, UserSplit]:
    """Training and test set of `config.name`, made with `config.arguments`.

    Raises:
        ValueError, TypeError: see `make_datasets`; or an option is set that only built-in sets have.
    """
    for option in ("augment", "randaugment", "erase", "normalise"):
        if getattr(config, option):
            raise ValueError(
                f"{option} is for built-in data sets; {config.name!r} does this in its own __getitem__"
            )
    train, test = make_datasets(config.name, config.arguments)
    return UserSplit.of(train, config.workers), UserSplit.of(test, config.workers)


def count_classes(train: UserSplit, test: UserSplit) -> int:
    """The number of classes: of the attribute `classes` of the training set, else the largest label plus 1.

    Raises:
        ValueError: a label lies outside.
    """
    names = getattr(train.samples.dataset, "classes", None)
    if names is not None:
        return len(names)
    labels = torch.cat([train.labels, test.labels])
    if labels.min() < 0:
        raise ValueError(f"class numbers count from 0; got {int(labels.min())}")
    return int(labels.max()) + 1


def names_of(train: UserSplit) -> tuple[str, ...]:
    """The attribute `classes` of the training set, where it holds words."""
    names = getattr(train.samples.dataset, "classes", None)
    return () if names is None or not all(isinstance(name, str) for name in names) else tuple(names)
