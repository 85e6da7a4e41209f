"""Compiled networks, which do not look for hooks that came after their compilation."""

import sys

import torch


def recompile() -> None:
    """Let compiled networks see hooks that were added or removed: they compile anew when they run next."""
    # importing the compiler takes seconds, and where it was not imported nothing is compiled
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
