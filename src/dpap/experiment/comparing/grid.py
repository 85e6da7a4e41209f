"""From the rows of a grid file, or one recipe, to the runs of a comparison."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dpap.data import DataConfig
from dpap.experiment.comparing.methods import DENSE, METHODS, check_methods, configured
from dpap.experiment.config import ExperimentConfig, can_name_a_folder, load_config, overridden, read_yaml
from dpap.experiment.errors import UserError, blame
from dpap.experiment.recipes import recipe_of_row
from dpap.experiment.run_folder import RunFolder
from dpap.experiment.scratch import check_target
from dpap.spelling import suggestion

HELD_OUT = 0.1  # share of the training data on which comparisons choose the epoch
KEYS = {"recipe", "name", "methods", "targets", "seeds", "set"}


@dataclass(frozen=True)
class Row:
    """A recipe and what is varied.

    Attributes:
        recipe: its name in tables and figures.
        config: the recipe.
        methods: of METHODS; the dense twin is run whether named or not.
        targets: of every method that prunes; without any, the recipe's own.
        seeds: each method and target once for each; where data are cut into folds, each tests on its own.
        folder: below the comparison's; holds the run folders.
    """

    recipe: str
    config: ExperimentConfig
    methods: Sequence[str]
    targets: Sequence[float]
    seeds: Sequence[int]
    folder: Path = field(default_factory=Path)


@dataclass(frozen=True)
class Planned:
    """One run of a comparison.

    Attributes:
        recipe: of its row.
        method: of METHODS.
        target: share that is to be pruned; None for the dense twin, and where no target is set.
        seed: of everything random.
        config: all of it; its folder is that of the run.
        dense: folder of its dense twin.
        source: the run whose structure it has; None where it needs none.
    """

    recipe: str
    method: str
    target: float | None
    seed: int
    config: ExperimentConfig
    dense: Path
    source: "Planned | None" = None

    @property
    def target_of(self) -> str:
        """What the target is a share of."""
        return self.config.pruning.target_of

    @property
    def files(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.config.folder)

    def __str__(self) -> str:
        return (
            f"{self.recipe}: {self.method}{target_words(self.target, self.target_of, ' ')}, seed {self.seed}"
        )


def target_words(target: float | None, target_of: str, join: str) -> str:
    """A target in words, each behind `join`: " 0.9", " 0.6 macs"; nothing where none was set."""
    words = ["" if target is None else f"{target:g}", "" if target_of == "weights" else target_of]
    return "".join(join + word for word in words if word)


def plan(rows: Sequence[Row], folder: Path) -> list[Planned]:
    """All runs, the dense twin of a recipe and seed before those that are compared with it, sources before their users.

    Raises:
        UserError: when a name is unknown, a value out of range, two runs of one name differ, or the source of a run is
            neither planned nor finished.
    """
    runs: dict[Path, Planned] = {}
    for row in rows:
        if not row.seeds:
            raise UserError(f"{row.recipe}: compare needs at least one seed; got none")
        if min(row.seeds) < 0:
            raise UserError(f"{row.recipe}: seeds must not be negative; got {min(row.seeds)}")
        try:
            made = _configurations(row)
        except UserError as error:
            raise UserError(f"{row.recipe}: {error}") from error
        for seed, (method, config) in itertools.product(row.seeds, made):
            planned = _planned(row, method, config, seed, folder / row.folder)
            _check_same(runs.setdefault(planned.config.folder, planned), planned)
    return _sources_first(runs)


def _configurations(row: Row) -> list[tuple[str, ExperimentConfig]]:
    """The methods of a row, each with its configuration: the dense twin, then every target."""
    check_methods(row.methods)
    made: list[tuple[str, ExperimentConfig]] = [(DENSE, configured(row.config, DENSE, None))]
    targets: Sequence[float | None] = row.targets or [None]
    for target, method in itertools.product(targets, row.methods):
        if method != DENSE:
            with blame("targets"):
                made.append((method, configured(row.config, method, target)))
    return made


def _planned(row: Row, method: str, config: ExperimentConfig, seed: int, place: Path) -> Planned:
    target, other, source = config.pruning.target, METHODS[method].structure_of, None
    name = f"{method}{target_words(target, config.pruning.target_of, '-')}-seed{seed}"
    with blame(row.recipe):
        data = data_of_seed(config.data, seed)
        run = replace(config, name=name, seed=seed, data=data, out=str(place / name))
        if other is not None:
            source = _planned(row, other, configured(row.config, other, target), seed, place)
            run = replace(run, structure=str(source.files.model))
        if run.prune and run.method == "scratch" and run.structure is None:
            check_target(run.pruning)
    return Planned(row.recipe, method, target, seed, run, place / f"{DENSE}-seed{seed}", source)


def _check_same(run: Planned, again: Planned) -> None:
    if run.config != again.config:
        raise UserError(
            f"{again} is planned twice, with two configurations; give one of the rows another `name`"
        )


def _sources_first(runs: Mapping[Path, Planned]) -> list[Planned]:
    """The runs, each after the one whose structure it has."""
    ordered: dict[Path, Planned] = {}
    for path, run in runs.items():
        if run.source is not None:
            source = run.source.config.folder
            if source in runs:
                _check_same(runs[source], run.source)
                ordered.setdefault(source, runs[source])
            elif not run.source.files.model.is_file():
                raise UserError(
                    f"{run} has the structure that {run.source.method} of the same target and seed ends with; "
                    f"expected that run in the comparison, or finished in {source}: add {run.source.method} to the "
                    "methods"
                )
        ordered.setdefault(path, run)
    return list(ordered.values())


def data_of_seed(data: DataConfig, seed: int) -> DataConfig:
    """The data of one seed: where there are folds, each seed tests on its own, so as many seeds test on all samples."""
    return replace(data, fold=(data.fold + seed) % data.folds) if data.folds else data


def comparable(config: ExperimentConfig, protocol_given: bool) -> ExperimentConfig:
    """The recipe with its epoch chosen on held-out data, unless a protocol was given or is its own.

    The last epoch of a recipe becomes the best on a validation split, a tenth of the training data where the recipe
    holds none out.
    """
    if protocol_given or config.protocol != "last":
        return config
    data = config.data if config.data.validation else replace(config.data, validation=HELD_OUT)
    return replace(config, data=data, protocol="validation")


def read_grid(
    path: Path,
    *,
    methods: Sequence[str],
    targets: Sequence[float],
    seeds: Sequence[int],
    protocol_given: bool = False,
    settle: Callable[[ExperimentConfig], ExperimentConfig] = lambda config: config,
) -> list[Row]:
    """The rows of a YAML file: a list of mappings with the keys of KEYS.

    `recipe` is a configuration file, relative to the grid's, or the name of a recipe that comes with dpap; `set` holds
    what is changed of it; `name` distinguishes two rows of one recipe.

    Args:
        path: of the file.
        methods, targets, seeds: of rows that name none.
        protocol_given: whether the command line chooses the protocol; `set: {protocol: ...}` chooses a row's.
        settle: maps each row's configuration to the one that is run.

    Raises:
        UserError: when the file or a row is not as described.
    """
    with blame("grid"):
        entries = read_yaml(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"grid {path}: expected a list of rows (- recipe: FILE, methods: [...]); got {entries!r}"
        )
    rows = []
    for number, entry in enumerate(entries, 1):
        where = f"grid {path}, row {number}"
        if not isinstance(entry, dict) or "recipe" not in entry or not entry.keys() <= KEYS:
            strange = [key for key in entry if key not in KEYS] if isinstance(entry, dict) else []
            raise UserError(
                f"{where}: expected `recipe` and any of {', '.join(sorted(KEYS))}; got {entry!r}"
                f"{suggestion(strange[0], KEYS) if strange else ''}"
            )
        changes = entry.get("set") or {}
        if not isinstance(changes, Mapping):
            raise UserError(f"{where}: `set` holds keys of a configuration; got {changes!r}")
        try:
            # what is allowed is checked by what is planned: a flag may have replaced the name
            with blame("recipe"):
                place = recipe_of_row(str(entry["recipe"]), path.parent)
            recipe = load_config(place, allow_imports=True)
            config = settle(overridden(recipe, changes) if changes else recipe)
            config = comparable(config, protocol_given or "protocol" in changes)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        name = str(entry.get("name", recipe.name))
        if not can_name_a_folder(name):
            raise UserError(f"{where}: `name` must be a word that can name a folder; got {name!r}")
        rows.append(
            Row(
                recipe=name,
                config=config,
                methods=_listed(entry, "methods", str, methods, where),
                targets=_listed(entry, "targets", float, targets, where),
                seeds=_listed(entry, "seeds", int, seeds, where),
                folder=Path(name),
            )
        )
    return rows


def _listed(
    entry: Mapping[str, Any], key: str, kind: type, default: Sequence[Any], where: str
) -> Sequence[Any]:
    values = entry.get(key, default)
    fits = (int, float) if kind is float else (kind,)
    if not isinstance(values, (list, tuple)) or not all(
        isinstance(each, fits) and not isinstance(each, bool) for each in values
    ):
        raise UserError(f"{where}: `{key}` is a list of {kind.__name__}; got {values!r}")
    return [kind(each) for each in values]
