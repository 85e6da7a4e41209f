"""Networks in wrappers of torch.distributed: which can be pruned, and how DistributedDataParallel follows a removal."""

import gc
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def check_whole(model: nn.Module) -> None:
    """Check that every rank holds the whole of each parameter.

    Raises:
        TypeError: for parameters that are spread over ranks, as FSDP and tensor parallelism do.
    """
    found = None
    if "torch.distributed.tensor" in sys.modules:
        from torch.distributed.tensor import DTensor

        found = next((name for name, one in model.named_parameters() if isinstance(one, DTensor)), None)
    if found is None and "torch.distributed.fsdp" in sys.modules:
        from torch.distributed.fsdp import FullyShardedDataParallel

        wrapped = (name for name, one in model.named_modules() if isinstance(one, FullyShardedDataParallel))
        found = next(wrapped, None)
    if found is not None:
        raise TypeError(
            f"expected a network of which every rank holds the whole; {found or 'this one'} is spread over ranks "
            "(FSDP, fully_shard, tensor parallelism), and units cannot be removed from parts of a parameter: train it "
            "with torch.nn.parallel.DistributedDataParallel, prune and compact it, and shard what is left"
        )


def wrappers_around(given: nn.Module, model: nn.Module) -> list[DistributedDataParallel]:
    """Every DistributedDataParallel of a network, of which something around it was given: only where none of them is
    there, others are searched for.
    """
    there = [one for one in given.modules() if isinstance(one, DistributedDataParallel)]
    return there or wrappers_of(model)


def wrappers_of(*models: nn.Module) -> list[DistributedDataParallel]:
    """Every DistributedDataParallel that holds any of these networks, as itself or as a part.

    torch keeps no list of them, and they may have been made at any time, by other code: they are found among all
    objects.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return []
    own = {id(model) for model in models}
    kinds = _with_subclasses(DistributedDataParallel)
    found = [one for one in gc.get_objects() if type(one) in kinds]
    return [
        one
        for one in found
        if "module" in one._modules and any(id(part) in own for part in one.module.modules())
    ]


def _with_subclasses(kind: type[Any]) -> set[type[Any]]:
    derived: list[type[Any]] = kind.__subclasses__()
    return {kind}.union(*map(_with_subclasses, derived))


def renew(wrappers: Iterable[DistributedDataParallel]) -> None:
    """Make wrappers anew, in place: they keep buckets of the sizes that they found, and hooks at the gradients of
    tensors as these were before they changed size or precision.
    """
    for wrapper in wrappers:
        parameters, sparse = wrapper._build_params_for_reducer()
        names = wrapper._build_debug_param_to_name_mapping(parameters)
        hooks: list[tuple[Callable[..., Any], object]] = list(getattr(wrapper, "_comm_hooks", ()))
        wrapper._module_parameters = list(parameters)
        # the old reducer takes its hooks along when it goes
        del wrapper.reducer
        wrapper._ddp_init_helper(parameters, sparse, names, wrapper.static_graph)
        wrapper._has_rebuilt_buckets = False
        if wrapper.static_graph and wrapper.logger is not None:
            wrapper.reducer._set_static_graph()
            wrapper.logger._set_static_graph()
        wrapper._comm_hooks = []
        for hook, state in hooks:
            wrapper.register_comm_hook(state, hook)
