from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from dpap.experiment.comparing.methods import METHODS, RECIPES_OWN, check_methods, configured
from dpap.experiment.errors import UserError
from dpap.pruning.config import Decay, PruningConfig


def test_every_method_fits_a_recipe_and_changes_pruning_alone(tiny: Any) -> None:
    recipe = tiny(
        training={"epochs": 8}, pruning={"end_epoch": 7, "timestep_target": 0.2}, data={"validation": 0.2}
    )
    made = {method: configured(recipe, method, 0.7) for method in METHODS}
    for method, config in made.items():
        assert (config.data, config.network) == (recipe.data, recipe.network)
        epochs = METHODS[method].times * recipe.training.epochs
        assert (config.training, config.seed) == (replace(recipe.training, epochs=epochs), recipe.seed)
        assert config.prune == (method != "dense")
        if config.prune:
            assert (config.pruning.target, config.pruning.end_epoch) == (0.7, 7)
            spares_timesteps = method == "no_timesteps" or config.method != "dpap"
            assert (config.pruning.timestep_target is None) == spares_timesteps
    assert {config.method for config in made.values()} == {
        "dpap", "gradual_magnitude", "gradient_rewiring", "scratch",
    }  # fmt: skip
    different = {method: (config, METHODS[method].structure_of) for method, config in made.items()}
    assert all(different[one] != different[other] for one, other in combinations(METHODS, 2))
    sources = {method.structure_of for method in METHODS.values()} - {None}
    assert sources == {"dpap"}
    assert all(METHODS[source].structure_of is None for source in sources)


def test_what_the_methods_change(tiny: Any) -> None:
    recipe = tiny(training={"epochs": 8}, pruning={"end_epoch": 7})
    free = configured(recipe, "no_protection", None).pruning
    assert free.conv.protection == free.neuron.protection == free.synapse.protection == 0
    assert free.conv.epsilon == PruningConfig.paper().conv.epsilon
    assert configured(recipe, "no_decay", None).pruning.gamma == 0
    assert configured(recipe, "units_random", None).pruning.criterion == "random"
    assert not configured(recipe, "units_random", None).pruning.synapses
    assert configured(recipe, "gradient_rewiring", None).method == "gradient_rewiring"
    assert configured(recipe, "dpap", None) == recipe
    assert configured(recipe, "even", None).pruning == replace(recipe.pruning, scope="layer")
    assert configured(recipe, "global_magnitude", None).pruning == replace(
        recipe.pruning, criterion="magnitude"
    )
    assert configured(recipe, "global_random", None).pruning == replace(
        recipe.pruning, criterion="random_once", scope="layer"
    )
    released, constants = (
        configured(recipe, "released", 0.5).pruning.as_dict(),
        PruningConfig.released().as_dict(),
    )
    assert {name for name in constants if released[name] != constants[name]} <= RECIPES_OWN
    assert (released["target"], released["end_epoch"]) == (0.5, 7)


def test_the_papers_rule_replaces_the_rule_of_a_recipe_and_nothing_else(tiny: Any) -> None:
    kept = {
        "target": 0.3, "end_epoch": 7, "start_epoch": 3, "observe_every": 2, "compact": "auto", "min_share": 0.1,
        "min_units": 1, "round_to": 4, "normalisation": "linear", "synapses": False, "timestep_target": 0.2,
    }  # fmt: skip
    own = {
        "criterion": "magnitude",
        "memory": 0.5,
        "deaths_per_epoch": 3,
        "gamma": 0.1,
        "conv": Decay(9.0, 9.0, 9.0, 9.0),
    }
    recipe = tiny(training={"epochs": 8}, pruning={**kept, **own})
    assert configured(recipe, "paper", None).pruning == PruningConfig.paper(**kept)
    changes: dict[str, dict[str, Any]] = {
        "strength": {"criterion": "bcm_strength"},
        "magnitude": {"criterion": "magnitude"},
        "random": {"criterion": "random"},
        "no_spines": {"criterion": "bcm_without_spines"},
        "no_trace": {"trace_decay": 1.0},
        "no_decay": {"gamma": 0.0},
        "no_timesteps": {"timestep_target": None},
        "units_paper": {"synapses": False},
    }
    for method, change in changes.items():
        assert configured(recipe, method, None).pruning == PruningConfig.paper(**{**kept, **change}), method


def test_controls_from_scratch_forget_the_structure_of_a_recipe(tiny: Any) -> None:
    recipe = tiny(method="scratch", structure="elsewhere.safetensors")
    for method in ("dense", "scratch", "scratch_long", "scratch_widths"):
        assert configured(recipe, method, 0.5).structure is None


def test_a_recipe_of_another_method_is_run_by_the_one_that_is_named(tiny: Any) -> None:
    common: dict[str, Any] = {"training": {"epochs": 8}, "pruning": {"end_epoch": 7}}
    plain = tiny(**common)
    recipe = tiny(**common, method="gradual_magnitude", structure="elsewhere.safetensors")
    for method in METHODS:
        assert configured(recipe, method, 0.5) == configured(plain, method, 0.5), method


def test_a_criterion_of_the_papers_rule_is_called_so() -> None:
    assert not [name for name, method in METHODS.items() if "DPAP" in method.text]


def test_the_long_control_is_the_same_but_for_its_epochs(tiny: Any) -> None:
    recipe = tiny(training={"epochs": 5})
    short, long = (configured(recipe, method, 0.5) for method in ("scratch", "scratch_long"))
    assert (short.training.epochs, long.training.epochs) == (5, 15)
    assert replace(long, training=short.training) == short


def test_a_target_without_an_end_is_met_at_the_end(tiny: Any) -> None:
    recipe = tiny(pruning={"target": None, "end_epoch": None}, training={"epochs": 5})
    assert configured(recipe, "dpap", 0.5).pruning.end_epoch == 5
    assert configured(recipe, "dpap", None).pruning.target is None


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UserError, match=r"(?s)unknown methods pruney, mag; known are.*gradual_magnitude"):
        check_methods(["dpap", "pruney", "mag"])
    with pytest.raises(UserError, match="at least one method"):
        check_methods([])
