"""Compiled networks, which ignore hooks that were added after their compilation."""

import sys

import torch


def recompile() -> None:
    """Make compiled networks run the hooks that they have now: they compile anew when they run next."""
    # importing the compiler takes seconds, and where it was not imported nothing is compiled
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
