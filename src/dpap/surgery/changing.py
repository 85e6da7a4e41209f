"""How functions that change a network's tensors run, whatever mode they are called in."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def changes_tensors(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Run a function without gradients, and outside inference mode, whose tensors could not be trained afterwards."""
    return torch.inference_mode(False)(torch.no_grad()(function))
