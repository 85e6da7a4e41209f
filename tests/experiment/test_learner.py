"""A learner is built from the configuration alone."""

from typing import Any

import torch

from dpap.data import load_data
from dpap.experiment.learner import build_learner


def test_what_is_drawn_in_pruning_follows_the_seed_of_the_run(tiny: Any) -> None:
    config = tiny(seed=3)
    learner = build_learner(config, load_data(config.data), torch.device("cpu"))
    assert learner.pruner is not None and learner.pruner.config.seed == 3
