"""Hooks that are added after compilation run."""

import torch
from torch import nn

from dpap.surgery.compiled import recompile


def test_hooks_run_in_networks_that_were_compiled_before() -> None:
    model = nn.Linear(3, 2)
    compiled, example = torch.compile(model, backend="eager"), torch.rand(4, 3)
    before = compiled(example)
    handle = model.register_forward_hook(lambda module, args, output: output + 1)
    recompile()
    assert torch.equal(compiled(example), before + 1)
    handle.remove()
    recompile()
    assert torch.equal(compiled(example), before)
