from itertools import combinations
from typing import Any

import pytest

from dpap.experiment.errors import UserError
from dpap.experiment.methods import METHODS, RECIPES_OWN, check_methods, configured
from dpap.pruning.config import PruningConfig


def test_every_method_fits_a_recipe_and_changes_pruning_alone(tiny: Any) -> None:
    recipe = tiny(
        training={"epochs": 8}, pruning={"end_epoch": 7, "timestep_target": 0.2}, data={"validation": 0.2}
    )
    made = {method: configured(recipe, method, 0.7) for method in METHODS}
    for method, config in made.items():
        assert (config.data, config.network) == (recipe.data, recipe.network)
        assert (config.training, config.seed) == (recipe.training, recipe.seed)
        assert config.prune == (method != "dense")
        if config.prune:
            assert (config.pruning.target, config.pruning.end_epoch) == (0.7, 7)
            spares_timesteps = method in ("no_timesteps", "gradual_magnitude", "gradient_rewiring")
            assert (config.pruning.timestep_target is None) == spares_timesteps
    assert all(made[one] != made[other] for one, other in combinations(METHODS, 2))


def test_what_the_methods_change(tiny: Any) -> None:
    recipe = tiny(training={"epochs": 8}, pruning={"end_epoch": 7})
    free = configured(recipe, "no_protection", None).pruning
    assert free.conv.protection == free.neuron.protection == free.synapse.protection == 0
    assert free.conv.epsilon == recipe.pruning.conv.epsilon
    assert configured(recipe, "no_decay", None).pruning.gamma == 0
    assert configured(recipe, "units_random", None).pruning.criterion == "random"
    assert not configured(recipe, "units_random", None).pruning.synapses
    assert configured(recipe, "gradient_rewiring", None).method == "gradient_rewiring"
    assert configured(recipe, "dpap", None) == recipe
    released, constants = (
        configured(recipe, "released", 0.5).pruning.as_dict(),
        PruningConfig.released().as_dict(),
    )
    assert {name for name in constants if released[name] != constants[name]} <= RECIPES_OWN
    assert (released["target"], released["end_epoch"]) == (0.5, 7)


def test_a_target_without_an_end_is_met_at_the_end(tiny: Any) -> None:
    recipe = tiny(pruning={"target": None, "end_epoch": None}, training={"epochs": 5})
    assert configured(recipe, "dpap", 0.5).pruning.end_epoch == 5
    assert configured(recipe, "dpap", None).pruning.target is None


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UserError, match=r"(?s)unknown methods pruney, mag; known are.*gradual_magnitude"):
        check_methods(["dpap", "pruney", "mag"])
    with pytest.raises(UserError, match="at least one method"):
        check_methods([])
