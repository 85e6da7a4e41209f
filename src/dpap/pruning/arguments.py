"""The arguments of a pruner, checked and taken out of their wrappers."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from dpap.anatomy.pytrees import Inputs, Outputs, all_tensors, is_float
from dpap.pruning.wrappers import check_whole
from dpap.surgery.known_optimizers import KnownOptimizers
from dpap.surgery.timesteps import AXES, BUFFER


@runtime_checkable
class OptimizerWrapper(Protocol):
    """What steps by an optimizer that it holds, as those of Accelerate, Lightning and DeepSpeed do."""

    @property
    def optimizer(self) -> Any:
        """The optimizer, or another wrapper."""


FRAMEWORKS = (
    "accelerate",
    "lightning",
    "lightning_fabric",
    "pytorch_lightning",
    "deepspeed",
    "transformers",
    "torch",
)
"""Packages whose wrappers of optimizers write no weights themselves."""
AnyOptimizer = Optimizer | OptimizerWrapper
"""An optimizer, also in wrappers."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel`, `DistributedDataParallel` and `AveragedModel`; the wrapper
    stays valid.

    Raises:
        TypeError: for what is no network, or one that is spread over several processes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected a network, a torch.nn.Module; got {type(model).__name__}")
    if "_orig_mod" in model._modules:  # the name in torch.compile; its class would import the whole compiler
        return unwrapped(model.get_submodule("_orig_mod"))
    if isinstance(model, nn.DataParallel | DistributedDataParallel | AveragedModel):
        return unwrapped(model.module)
    check_whole(model)
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
        if len({is_float(each) for each in example_inputs if isinstance(each, Tensor)}) > 1:
            raise TypeError(
                "example_inputs expects a list of several examples that are alike; got list; real numbers and "
                "integers; of a batch of a DataLoader, [x, y], give the inputs alone, x"
            )
        return [_as_example(example, model) for example in example_inputs]
    return _as_example(example_inputs, model)


def _as_example(example_inputs: Any, model: nn.Module) -> Inputs:
    if isinstance(example_inputs, Tensor):
        example_inputs = (example_inputs,)
    if isinstance(example_inputs, Mapping):
        example_inputs = dict(example_inputs)
    if not isinstance(example_inputs, tuple | dict) or hasattr(example_inputs, "_fields"):
        if next(all_tensors(example_inputs), None) is None:
            raise TypeError(
                "example_inputs expects a tensor, an object that holds tensors, a tuple of positional arguments or a "
                f"dict of keyword arguments, or a list of several such examples; got {type(example_inputs).__name__}; "
                "of a batch of a DataLoader, [x, y], give the inputs alone, x"
            )
        example_inputs = (example_inputs,)
    devices = {parameter.device for parameter in model.parameters()}
    for tensor in all_tensors(example_inputs):
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


def check_call(model: nn.Module, inputs: Inputs) -> None:
    """Check that a network's forward takes the example inputs.

    Raises:
        TypeError: where it does not, such as a batch of inputs and labels.
    """
    try:
        signature = inspect.signature(model.forward)
        args, options = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
        signature.bind(*args, **options)
    except ValueError:
        return  # a forward that does not tell what it takes
    except TypeError as error:
        given = f"{len(inputs)} arguments" if isinstance(inputs, tuple) else f"{', '.join(map(str, inputs))}"
        raise TypeError(
            f"example_inputs expects what the network's forward{signature} takes; got {given} ({error}): of a batch "
            "with labels, (x, y), give the inputs alone, x"
        ) from error


def as_optimizers(optimizer: Any) -> tuple[Optimizer, ...]:
    """None, one or several optimizers, as a tuple; taken out of the wrappers of Accelerate, Lightning, DeepSpeed.

    Raises:
        TypeError: where one is something else.
    """
    return known_optimizers(optimizer).given


def known_optimizers(optimizer: Any) -> KnownOptimizers:
    """None, one or several optimizers, with the wrappers that may write weights after they have stepped.

    Raises:
        TypeError: where one is something else.
    """
    if optimizer is None:
        return KnownOptimizers(())
    several = isinstance(optimizer, Iterable) and not _is_wrapper(optimizer)
    found: dict[int, Optimizer] = {}
    wrappers: list[Any] = []
    for one in optimizer if several else (optimizer,):
        *around, bare = _unwrapping(one)
        found.setdefault(id(bare), _checked(bare, one))
        wrappers += [each for each in around if type(each).__module__.partition(".")[0] not in FRAMEWORKS]
    return KnownOptimizers(found.values(), wrappers=wrappers)


def _is_wrapper(optimizer: Any) -> bool:
    """Whether something steps and clears gradients as an optimizer does, by one that it holds."""
    return callable(getattr(optimizer, "zero_grad", None)) and hasattr(optimizer, "optimizer")


def _unwrapping(optimizer: Any) -> list[Any]:
    """A wrapper, what it holds, what that holds, and so on, last the optimizer that makes the steps."""
    seen = [optimizer]
    while (inner := _inside(seen[-1])) is not None and all(inner is not one for one in seen):
        seen.append(inner)
    return seen


def _inside(optimizer: Any) -> Any:
    """What a wrapper holds, or the optimizer by which another one steps, as that of sharpness-aware minimization."""
    if _is_wrapper(optimizer):
        return optimizer.optimizer
    if not isinstance(optimizer, Optimizer):
        return None
    held = (one for one in vars(optimizer).values() if isinstance(one, Optimizer))
    # one of a part of the parameters is no step by itself: ZeroRedundancyOptimizer shares them out
    return next((one for one in held if _parameters_of(one) == _parameters_of(optimizer)), None)


def _parameters_of(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _checked(bare: Any, optimizer: Any) -> Optimizer:
    if isinstance(bare, Optimizer):
        return bare
    name = type(optimizer).__name__
    if callable(getattr(optimizer, "get_last_lr", None)) or isinstance(optimizer, LRScheduler):
        raise TypeError(
            f"optimizer expects a torch.optim.Optimizer; got the scheduler {name}: give its .optimizer"
        )
    raise TypeError(
        f"optimizer expects a torch.optim.Optimizer, or several; got {name}: give what torch.optim's class returned, "
        "such as torch.optim.Adam(model.parameters())"
    )


def check_trained(optimizers: Sequence[Optimizer], models: Sequence[nn.Module]) -> None:
    """Check that every optimizer holds parameters of any of these networks.

    Raises:
        ValueError: where one is of another network.
    """
    own = {id(parameter) for model in models for parameter in model.parameters()}
    for optimizer in optimizers:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not any(id(parameter) in own for parameter in held):
            raise ValueError(
                f"optimizer: {type(optimizer).__name__} holds no parameter of this network, but {len(held)} others: "
                "give the one that trains this network, made of its model.parameters(); what gives a network new "
                "parameters, such as load_state_dict(..., assign=True), has to come before its optimizer is made"
            )


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
