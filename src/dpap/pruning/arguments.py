"""The arguments of a pruner, checked and taken out of their wrappers."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from dpap.anatomy.pytrees import Inputs, Outputs, float_tensors
from dpap.surgery.timesteps import AXES, BUFFER


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel` and `AveragedModel`; the wrapper stays valid.

    Raises:
        TypeError: for what is no network, or a wrapper that keeps the sizes of the parameters.
    """
    if isinstance(model, DistributedDataParallel):
        raise TypeError(
            "DistributedDataParallel sends gradients in buckets of the sizes that it found: give the network inside "
            "(its .module) to Pruner with compact='manual', and wrap it anew after every compact()"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module; got {type(model).__name__}")
    if "_orig_mod" in model._modules:  # the name in torch.compile; its class would import the whole compiler
        return unwrapped(model.get_submodule("_orig_mod"))
    if isinstance(model, nn.DataParallel | AveragedModel):
        return unwrapped(model.module)
    return model


def as_inputs(example_inputs: Any, model: nn.Module) -> Inputs:
    """A tensor, positional arguments or keyword arguments, or a list of such examples, as what a network can be run on.

    Raises:
        TypeError: where it is none of these.
        ValueError: where it lies on another device than the network, or is an empty list.
    """
    if isinstance(example_inputs, list):
        if not example_inputs:
            raise ValueError("example_inputs expects at least one example; got an empty list")
        return [_as_example(example, model) for example in example_inputs]
    return _as_example(example_inputs, model)


def _as_example(example_inputs: Any, model: nn.Module) -> Inputs:
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if not isinstance(example_inputs, tuple | dict):
        raise TypeError(
            "example_inputs expects a tensor, a tuple of positional arguments or a dict of keyword arguments, or a "
            f"list of several such examples; got {type(example_inputs).__name__}"
        )
    devices = {parameter.device for parameter in model.parameters()}
    for tensor in float_tensors(example_inputs):
        if devices and tensor.device not in devices:
            device = next(iter(devices))
            raise ValueError(
                f"example_inputs are on {tensor.device}, the network is on {device}: "
                f"move them with .to({str(device)!r})"
            )
    return example_inputs


def as_outputs(outputs: Any) -> Outputs | None:
    """A function of what forward returns, or None.

    Raises:
        TypeError: where it is something else.
    """
    if outputs is None or callable(outputs):
        return outputs
    raise TypeError(
        "outputs expects a function of what the network's forward returns that gives the tensors which must keep "
        f"their width, for example lambda returned: returned[0]; got {type(outputs).__name__}"
    )


def as_optimizers(optimizer: Optimizer | Sequence[Optimizer] | None) -> tuple[Optimizer, ...]:
    """None, one or several optimizers, as a tuple.

    Raises:
        TypeError: where one is something else.
    """
    if optimizer is None:
        return ()
    optimizers = (optimizer,) if isinstance(optimizer, Optimizer) else tuple(optimizer)
    for one in optimizers:
        if not isinstance(one, Optimizer):
            raise TypeError(
                f"optimizer expects a torch.optim.Optimizer, or several; got {type(one).__name__}"
            )
    return optimizers


def as_copies(copies: nn.Module | Sequence[nn.Module], model: nn.Module) -> tuple[nn.Module, ...]:
    """Networks of the same structure as another, taken out of their wrappers.

    Raises:
        ValueError: where one is not of the same structure, or is the same network.
    """
    found = tuple(unwrapped(copy) for copy in ((copies,) if isinstance(copies, nn.Module) else copies))
    for copy in found:
        _check_copy(copy, model)
    return found


def _check_copy(copy: nn.Module, model: nn.Module) -> None:
    own, other = _tensors(model), _tensors(copy)
    if any(own[name] is tensor for name, tensor in other.items() if name in own):
        raise ValueError(
            "copies expects other networks; got one that shares its parameters with the network itself"
        )
    problems = [f"{name}: not in the copy" for name in own.keys() - other.keys()]
    problems += [f"{name}: only in the copy" for name in other.keys() - own.keys()]
    problems += [
        f"{name}: {tuple(own[name].shape)} in the network, {tuple(other[name].shape)} in the copy"
        for name in own.keys() & other.keys()
        if own[name].shape != other[name].shape
    ]
    parts = {name for name, _ in copy.named_modules()}
    problems += [
        f"{name}: {type(module).__name__} in the network, not in the copy"
        for name, module in model.named_modules()
        if name not in parts
    ]
    if problems:
        listed = "\n  ".join(sorted(problems)[:12])
        more = f"\n  and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise ValueError(
            f"copies expects networks of the same structure; one differs:\n  {listed}{more}\n"
            "copy the network with copy.deepcopy or torch.optim.swa_utils.AveragedModel"
        )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    everything = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: tensor for name, tensor in everything.items() if name.rpartition(".")[2] not in (BUFFER, AXES)
    }
