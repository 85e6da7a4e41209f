"""The whole of an experiment as one typed configuration: YAML in, YAML out, every field a flag."""

import math
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from dpap.baselines import GradientRewiringConfig
from dpap.data import DataConfig
from dpap.experiment.errors import UserError, blame
from dpap.experiment.parser import Parser, kinds_in_words
from dpap.experiment.recipes import own_recipe, recipe_path
from dpap.models import NetworkConfig
from dpap.pruning.config import PruningConfig


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights learn.

    Attributes:
        epochs: passes over the training data.
        optimizer: adam, adamw or sgd.
        learning_rate: the peak of the schedule.
        weight_decay: as the optimizer of that name understands it.
        momentum: of sgd.
        warmup_epochs: epochs of linear rise before the cosine.
        schedule: cosine (after the warm-up, down to zero), onecycle (up for 30% of the steps, then down to
            zero) or constant; all step by step.
        loss: cross_entropy of the logits, or rate_mse, the squared distance of output rates to one-hot.
        label_smoothing: of the cross-entropy.
        gradient_clip: largest norm of the gradient; null leaves it alone.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads of torch; null leaves torch's choice.
        precision: float32, or bfloat16 for forwards and backwards of training; weights, survival, traces and
            evaluation stay float32. Slow on a CPU without bfloat16 arithmetic (AVX-512 or AMX).
        channels_last: feature maps with the channels innermost, as convolutions prefer; rounds differently.
        compile: fuse the neurons' timesteps by torch.compile, half a minute or two at the start, and not again when
            the network shrinks; without a C++ compiler they are not fused.
        log: tensorboard writes the records of every epoch for that program too, into the run folder; null does not.
    """

    epochs: int = 20
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    warmup_epochs: float = 0.0
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    loss: Literal["cross_entropy", "rate_mse"] = "cross_entropy"
    label_smoothing: float = 0.0
    gradient_clip: float | None = None
    device: str = "auto"
    threads: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    log: Literal["tensorboard"] | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "threads"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"training.{name} must be at least 1; got {count}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"training.learning_rate must be above 0; got {self.learning_rate}")
        if self.weight_decay < 0:
            raise ValueError(f"training.weight_decay must not be negative; got {self.weight_decay}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"training.momentum must lie in [0, 1); got {self.momentum}")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"training.warmup_epochs must lie in [0, {self.epochs}), the epochs; got {self.warmup_epochs}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"training.label_smoothing must lie in [0, 1); got {self.label_smoothing}")
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise ValueError(f"training.gradient_clip must be above 0 or null; got {self.gradient_clip}")


@dataclass(frozen=True)
class ExperimentConfig:
    """One run: data, network, pruning, learning, seed.

    Attributes:
        name: of the run, for tables and the report.
        data: what it learns from.
        network: what learns.
        prune: whether it is pruned while it learns; false is the dense twin of the same run.
        method: dpap, or a baseline, which prunes single weights and uses only target, start_epoch and end_epoch of
            `pruning`: gradual_magnitude (Zhu & Gupta, arXiv 1710.01878) or gradient_rewiring (Grad R,
            Chen et al., arXiv 2105.04916). scratch is a small network of the cost that `target` leaves, from scratch.
        pruning: how it is pruned.
        structure: of scratch: the model file of a run whose widths, zeros and dead timesteps the network has; null: it
            is narrower by one factor in every layer.
        rewiring: the prior of gradient_rewiring; its alpha, more than the target, sets how much is pruned.
        training: how the weights learn.
        seed: of everything random.
        protocol: the epoch of the network that is reported and kept. last: the last; validation: the best on the
            validation split (needs data.validation above 0); paper: the best on the test split, as the paper's
            tables do. Of a pruned run only epochs count that are as sparse as the last, within one point.
        out: the run folder; null is runs/NAME.
    """

    name: str = "run"
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    prune: bool = True
    method: Literal["dpap", "gradual_magnitude", "gradient_rewiring", "scratch"] = "dpap"
    pruning: PruningConfig = field(default_factory=PruningConfig)
    structure: str | None = None
    rewiring: GradientRewiringConfig = field(default_factory=GradientRewiringConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    protocol: Literal["last", "validation", "paper"] = "last"
    out: str | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative; got {self.seed}")
        if not can_name_a_folder(self.name):
            raise ValueError(f"name must be a word that can name a folder; got {self.name!r}")
        if self.protocol == "validation" and not self.data.validation:
            raise ValueError(
                "protocol 'validation' chooses the epoch on a validation split, but data.validation is "
                f"{self.data.validation}; set it above 0, or choose protocol 'last' or 'paper'"
            )
        if self.training.loss == "rate_mse" and self.network.readout != "rate":
            raise ValueError(
                "training.loss 'rate_mse' compares firing rates and needs network.readout 'rate'; "
                f"got {self.network.readout!r}"
            )
        end = self.pruning.end_epoch
        if self.prune and end is not None and end > self.training.epochs:
            raise ValueError(
                f"pruning.end_epoch, by which the target is met, must be one of the {self.training.epochs} "
                f"epochs of training; got {end}"
            )

    @property
    def folder(self) -> Path:
        """Where the run is written."""
        return Path(self.out) if self.out is not None else Path("runs") / self.name

    def as_dict(self) -> dict[str, Any]:
        """Plain values, nested as in the YAML file."""
        return asdict(self)

    def as_yaml(self) -> str:
        """The YAML file that `load_config` reads back."""
        return yaml.safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True)


def can_name_a_folder(name: str) -> bool:
    """Whether a name is one folder's, inside the one that it is put in, on any system."""
    return bool(name.strip(". ")) and name.isprintable() and not set(name) & set("/\\")


RECIPE = "--recipe"
CLASS = "class_path"
"""The key by which the parser takes a class for a value."""
MOST_VALUES, MOST_LEVELS = 10_000, 20


class _PlainConfigFile(ActionConfigFile):
    """A file of plain values, or a recipe's. The parser would import the module of any class that it names, even to
    refuse it.
    """

    def __call__(self, parser: Any, parsed: Any, values: Any, option_string: str | None = None) -> None:
        if option_string == RECIPE:
            values = str(recipe_path(values))
        path = Path(str(values))
        if "\n" in str(values):
            with suppress(yaml.YAMLError):  # which the parser itself explains
                check_plain(yaml.safe_load(str(values)), "the configuration")
        elif path.is_file():
            check_plain(read_yaml(path), f"configuration {path.name}")
        elif not path.exists() and (known := own_recipe(path)):
            raise UserError(f"no configuration file {path}{known}")
        super().__call__(parser, parsed, values, option_string)


def _parts(of: type, prefix: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(of).items():
        if is_dataclass(kind) and isinstance(kind, type):
            yield prefix + name
            yield from _parts(kind, f"{prefix}{name}.")


PARTS = frozenset(_parts(ExperimentConfig))
"""Keys of the configuration that hold keys themselves."""


def _never_null(of: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, kind in get_type_hints(of).items():
        if is_dataclass(kind) and isinstance(kind, type):
            yield prefix + name, "keys and values"
            yield from _never_null(kind, f"{prefix}{name}.")
        elif type(None) not in get_args(kind):
            yield prefix + name, kinds_in_words(str(kind))[0]


NEVER_NULL = dict(_never_null(ExperimentConfig))
"""Keys that cannot be null, and what they take in words: the parser lets null stand for anything."""


def check_plain(values: Any, where: str) -> None:
    """Raises UserError where a configuration has a class to import, or another file, in the place of plain values, or
    more of these than any configuration has: a few lines of YAML that refer to each other can stand for billions.
    """
    _check_size(values, where)
    _check_plain(values, where, "")


def _check_size(values: Any, where: str) -> None:
    left, numbers = [(values, 0)], 0
    while left:
        value, depth = left.pop()
        numbers += 1
        if numbers > MOST_VALUES or depth > MOST_LEVELS:
            raise UserError(
                f"{where}: a configuration has at most {MOST_VALUES} values, {MOST_LEVELS} levels deep; it has more"
            )
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        left += [(each, depth + 1) for each in inner]


def _check_plain(values: Any, where: str, key: str) -> None:
    if isinstance(values, str) and key in PARTS:
        raise UserError(f"{where}: {key} holds keys and values; got {values!r}")
    if values is None and key in NEVER_NULL:
        raise UserError(
            f"{where}: {key}: expected {NEVER_NULL[key]}; got null; leave it out where its default is meant"
        )
    if not isinstance(values, Mapping) or key == "data.arguments":
        return
    for name, value in values.items():
        if str(name).rpartition(".")[2] == CLASS:
            raise UserError(f"{where}: {key or 'it'} holds plain values; got {CLASS} {value!r}")
        _check_plain(value, where, f"{key}.{name}" if key else str(name))


def add_experiment_flags(parser: ArgumentParser) -> None:
    """Give `parser` --config FILE, --recipe NAME and one flag for every field of ExperimentConfig."""
    parser.add_argument(
        "--config",
        RECIPE,
        action=_PlainConfigFile,
        metavar="FILE | NAME",
        help="YAML file of a recipe or a run, or the name of one of `dpap recipes`; flags after it override it",
    )
    parser.add_class_arguments(ExperimentConfig, None)


def config_from(
    parser: ArgumentParser, parsed: Namespace, where: str = "the configuration"
) -> ExperimentConfig:
    """The configuration that a parser with `add_experiment_flags` has parsed; `where` it stood is for messages.

    Raises:
        UserError: when a value is out of range or two values contradict each other.
    """
    names, given = [each.name for each in fields(ExperimentConfig)], parsed.as_dict()
    check_plain({name: given[name] for name in names}, where)
    with blame(where):
        values = parser.instantiate(parsed)
        return ExperimentConfig(**{name: values[name] for name in names})


def load_config(path: Path | str, *, allow_imports: bool = False) -> ExperimentConfig:
    """Read a YAML file that holds any part of an ExperimentConfig.

    Args:
        path: of the file.
        allow_imports: take a file that names code, a data set of its own, which a run of it would import.

    Raises:
        UserError: when there is no such file, a key or a value in it is not one of the configuration's, or it names
            code and that is not allowed.
    """
    path = Path(path)
    with blame("configuration"):
        there = path.is_file()
    if not there:
        raise UserError(f"no configuration file {path}{own_recipe(path)}")
    parser = _plain_parser()
    check_plain(read_yaml(path), f"configuration {path}")
    try:
        parsed = parser.parse_path(path)
    except ArgumentError as error:
        raise UserError(f"configuration {path}: {error}") from error
    config = config_from(parser, parsed, f"configuration {path}")
    if not allow_imports:
        refuse_imports(config, f"configuration {path}")
    return config


def read_yaml(path: Path) -> Any:
    """The values in a YAML file.

    Raises:
        UserError: when it cannot be read as one, or has more values than any configuration.
    """
    with blame(f"configuration {path}"):
        text = path.read_text(encoding="utf-8")
    return parse_yaml(text, f"configuration {path}")


def parse_yaml(text: str, where: str) -> Any:
    """The values in YAML; `where` it stood is for messages.

    Raises:
        UserError: as `read_yaml`.
    """
    with blame(where):
        try:
            values = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"expected YAML, got {error}") from error
    _check_size(values, where)
    return values


def refuse_imports(config: ExperimentConfig, where: str) -> None:
    """Raises UserError when the configuration names code, which a run of it would import: whoever wrote the file could
    run anything.
    """
    if ":" in config.data.name:
        raise UserError(
            f"{where} names code to import, data.name {config.data.name!r}: if you trust it, add --allow-imports "
            "(allow_imports=True in Python) or name it yourself, by the flag --data.name"
        )


def load_run_config(path: Path | str, *, allow_imports: bool = False) -> ExperimentConfig:
    """Read the configuration that a run wrote down, by this version or an earlier one.

    Raises:
        UserError: as `load_config`.
    """
    config = load_config(path, allow_imports=allow_imports)
    stored = read_yaml(Path(path))
    if not isinstance(stored, Mapping) or complete(stored) == config.as_dict():
        return config  # the usual case, and far faster than to check every key again
    return overridden(config, complete(stored))


def complete_from(stored: Any, where: str) -> dict[str, Any]:
    """As `complete`, of values from a file; `where` they stood is for messages.

    Raises:
        UserError: where they are no configuration of a run.
    """
    check_plain(stored, where)
    parts = (
        [stored, *(stored[key] for key in PARTS if key in stored)]
        if isinstance(stored, Mapping)
        else [stored]
    )
    for part in parts:
        if not isinstance(part, Mapping) or not all(isinstance(key, str) for key in part):
            raise UserError(f"{where}: a configuration holds keys and values; got {part!r:.60}")
    return complete(stored)


def complete(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The whole configuration of a run, as plain values, with what it meant before there was a field for it.

    Example:
        >>> from dpap.experiment.config import complete
        >>> complete({"pruning": {"gamma": 0.999}})["pruning"]
        {'scope': 'layer', 'deaths_per_epoch': 1, 'memory': 0.0, 'gamma': 0.999}
    """
    pruning = {**BEFORE, **stored.get("pruning", {})}
    whole = {"structure": None, **stored, "pruning": pruning}
    for part, added in ADDED.items():
        if part in stored:
            whole[part] = {**added, **stored[part]}
    return whole


ADDED: dict[str, dict[str, Any]] = {
    "training": {"log": None},
    "data": {"randaugment": 0.0, "erase": 0.0},
    "network": {
        "learn_surrogate": False,
        "fc_neuron": None,
        "fc_threshold": None,
        "fc_surrogate": None,
        "fc_surrogate_parameter": None,
    },
}
"""Fields that came later, and what they were before."""

BEFORE = {"scope": "layer", "deaths_per_epoch": 1, "memory": 0.0}
"""Fields of `pruning` that dpap 0.1.0 did not have, and how it pruned."""


def overridden(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """The configuration with `changes`, nested as in its YAML file; what they do not name stays.

    Raises:
        UserError: when a key or a value is not one of the configuration's.
    """
    check_plain(changes, "the configuration")
    parser = _plain_parser()
    try:
        parsed = parser.parse_object(_merged(config.as_dict(), changes))
    except ArgumentError as error:
        raise UserError(f"the configuration: {error}") from error
    return config_from(parser, parsed)


@cache
def _plain_parser() -> ArgumentParser:
    """One for all: a grid parses hundreds of configurations, and to make a parser takes longer than that."""
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(ExperimentConfig, None)
    return parser


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        deeper = isinstance(change, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], change) if deeper else change
    return merged
