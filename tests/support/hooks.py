"""What a pruner can leave in a network, and whether two networks are equal."""

import torch
from torch import nn

KINDS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_load_state_dict_pre_hooks")


def hooks(model: nn.Module) -> int:
    """How many hooks there are, in modules and at parameters."""
    of_modules = sum(len(getattr(module, kind)) for module in model.modules() for kind in KINDS)
    return of_modules + sum(
        len(parameter._post_accumulate_grad_hooks or ()) for parameter in model.parameters()
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same state, bit for bit."""
    own, others = one.state_dict(), other.state_dict()
    return own.keys() == others.keys() and all(torch.equal(own[name], others[name]) for name in own)
