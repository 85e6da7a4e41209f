"""The methods of `dpap compare`: each is a name for what it changes in a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dpap.baselines import GradientRewiringConfig
from dpap.experiment.config import ExperimentConfig, overridden
from dpap.experiment.errors import UserError, blame
from dpap.pruning.config import PruningConfig
from dpap.spelling import nearest

DENSE = "dense"
LONG = 3
"""Times the epochs of the recipe that the long control has; what that takes beside pruning is in
docs/results/protocol.md.
"""
RECIPES_OWN = {
    "target", "target_of", "end_epoch", "seed", "synapses", "timesteps", "timestep_target", "round_to"
}  # fmt: skip
"""Fields of pruning that stay the recipe's under the constants of the released code."""


@dataclass(frozen=True)
class Method:
    """One way to prune, or not to.

    Attributes:
        text: what it is, in a line.
        changes: of the recipe's ExperimentConfig, nested as in its YAML file.
        structure_of: the method whose run of the same target and seed gives its structure, if it needs one.
        times: as many times the epochs of the recipe.
    """

    text: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    structure_of: str | None = None
    times: int = 1


def _pruning(text: str, **changes: Any) -> Method:
    return Method(text, {"pruning": changes})


def _constants(config: PruningConfig) -> dict[str, Any]:
    return {name: value for name, value in config.as_dict().items() if name not in RECIPES_OWN}


PAPER = {
    name: value
    for name, value in _constants(PruningConfig.paper()).items()
    if value != PruningConfig().as_dict()[name]
}
"""What makes the paper's rule of the default; all else, such as when deaths begin, stays the recipe's."""


def _paper(text: str, **changes: Any) -> Method:
    """The paper's rule, changed."""
    merged = {
        name: {**PAPER[name], **value} if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    return _pruning(text, **{**PAPER, **merged})


def _criterion(name: str, text: str) -> Method:
    return _paper(text, criterion=name)


def _units(name: str, text: str) -> Method:
    return _paper(f"{text}, channels and neurons alone", criterion=name, synapses=False)


def _baseline(name: str, text: str) -> Method:
    """Single weights alone."""
    return Method(text, {"method": name, "pruning": {"timesteps": False, "timestep_target": None}})


def _scratch(text: str, structure_of: str | None = None, times: int = 1) -> Method:
    pruning = {"timesteps": False, "timestep_target": None}
    return Method(text, {"method": "scratch", "structure": None, "pruning": pruning}, structure_of, times)


def _released() -> Method:
    """The constants of the released code; nothing is compacted, for what is removed leaves its normalisation."""
    changes = _constants(PruningConfig.released())
    return _pruning("the paper's rule by the formulas and constants of the authors' released code", **changes)


METHODS: dict[str, Method] = {
    DENSE: Method("nothing is pruned", {"prune": False}),
    "dpap": Method(
        "the recipe as it is: by default contribution to the loss, over the whole network, gradually"
    ),
    "taylor": _pruning("the recipe with each synapse by its own contribution", criterion="taylor"),
    "even": _pruning("the same with each layer on its own", scope="layer"),
    "global_magnitude": _pruning(
        "the recipe with the magnitude of the weights as importance", criterion="magnitude"
    ),
    "global_random": _pruning(
        "the recipe with an importance drawn once, each layer on its own",
        criterion="random_once",
        scope="layer",
    ),
    "scratch": _scratch("a dense network as small as the target asks, by its width, from scratch"),
    "scratch_long": _scratch(
        f"the same with {LONG} times the epochs, so in the time that pruning takes or more", times=LONG
    ),
    "scratch_widths": _scratch(
        "a network of the widths and zeros that method dpap ended with, from scratch", "dpap"
    ),
    "paper": _paper("the paper's rule: BCM plasticity, dendritic spines, gradual decay"),
    "strength": _criterion(
        "bcm_strength", "the paper's rule with BCM weighted by the strength of the synapses"
    ),
    "hebb": _criterion("hebb", "the paper's rule with Hebb's rule instead of BCM"),
    "stdp": _criterion("stdp", "the paper's rule with spike-timing-dependent plasticity instead of BCM"),
    "firing_rate": _criterion("firing_rate", "the paper's rule with the mean activity as importance"),
    "magnitude": _criterion("magnitude", "the paper's rule with the magnitude of the weights as importance"),
    "random": _criterion("random", "the paper's rule with a random importance, drawn anew every epoch"),
    "random_once": _criterion("random_once", "the paper's rule with a random importance, drawn once"),
    "released": _released(),
    "no_trace": _paper("the paper's rule with traces that forget nothing", trace_decay=1.0),
    "no_spines": _criterion("bcm_without_spines", "the paper's rule without dendritic spines"),
    "no_decay": _paper("the paper's rule with a survival function without memory", gamma=0.0),
    "no_protection": _paper(
        "the paper's rule without protection",
        **{kind: {"protection": 0.0} for kind in ("conv", "neuron", "synapse", "timestep")},
    ),
    "no_timesteps": _paper(
        "the paper's rule without pruning of timesteps", timesteps=False, timestep_target=None
    ),
    "units_paper": _paper("the paper's rule, channels and neurons alone", synapses=False),
    "units_magnitude": _units("magnitude", "magnitude"),
    "units_firing_rate": _units("firing_rate", "mean activity"),
    "units_random": _units("random", "random importance"),
    "gradual_magnitude": _baseline("gradual_magnitude", "gradual magnitude pruning (Zhu and Gupta, 2017)"),
    "gradient_rewiring": _baseline("gradient_rewiring", "gradient rewiring, Grad R (Chen et al., 2021)"),
}

ABLATIONS = tuple(name for name in METHODS if name.startswith("no_"))
"""The paper's rule with one part removed."""


def check_methods(names: Sequence[str]) -> None:
    """Raises UserError that lists the known where a name is unknown, or when there is none."""
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        known = "\n".join(f"  {name:18} {method.text}" for name, method in METHODS.items())
        meant = [name for name in (nearest(each, METHODS) for each in unknown) if name is not None]
        wrong = f"unknown methods {', '.join(unknown)}" if unknown else "compare needs at least one method"
        also = f" (did you mean {', '.join(meant)}?)" if meant else ""
        raise UserError(f"{wrong}{also}; known are\n{known}")


def configured(config: ExperimentConfig, method: str, target: float | None) -> ExperimentConfig:
    """The recipe as `method` runs it.

    Args:
        config: the recipe.
        method: one of METHODS.
        target: instead of the recipe's; None leaves that. Without an end_epoch in the recipe it is met at the end.

    Raises:
        UserError: when the method does not go with the recipe.
    """
    if method == DENSE:  # one twin for all methods of a recipe
        return replace(
            config,
            prune=False,
            pruning=PruningConfig(),
            method="dpap",
            structure=None,
            rewiring=GradientRewiringConfig(),
        )
    with blame(f"method {method}"):
        # a recipe's own method and structure are those of one run: a method of this name is never another one
        changed = overridden(
            config, {"prune": True, "method": "dpap", "structure": None, **METHODS[method].changes}
        )
        epochs = METHODS[method].times * changed.training.epochs
        changed = replace(changed, training=replace(changed.training, epochs=epochs))
        if target is None:
            return changed
        end = changed.pruning.end_epoch or config.training.epochs
        return replace(changed, pruning=replace(changed.pruning, target=target, end_epoch=end))
