"""Dense computation of one forward pass, and its time."""

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dpap.anatomy.pytrees import map_tensors
from dpap.metrics.alternating import alternate
from dpap.metrics.layers import evaluating


def _recurrent_flops(given: torch.Size, *rest: Any, out_shape: Any = None) -> int:
    """Flops of a recurrent kernel: at every timestep of every sample each weight is used once.

    Args:
        given: shape of its input [..., feature].
        rest: the shapes of its weights, in a list or one by one, before anything else with two axes.
        out_shape: of what it returned.
    """
    weights = (
        rest[0] if isinstance(rest[0], list | tuple) and not isinstance(rest[0], torch.Size) else rest[:2]
    )
    return 2 * math.prod(given[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


_KERNELS = {torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops, torch.ops.aten._cudnn_rnn: _recurrent_flops}
"""Recurrent layers in one kernel, which torch does not count."""


def macs(model: nn.Module, *example: Any) -> int:
    """Multiply-accumulates of one inference on the example, zeros and padding included.

    Those of convolutions, matrix products, recurrent layers and attention, of all samples and timesteps together.

    Example:
        >>> import torch
        >>> from dpap.metrics import macs
        >>> macs(torch.nn.Conv2d(1, 4, 3), torch.rand(1, 1, 8, 8))
        1296
    """
    given = map_tensors(example, Tensor.detach)
    with evaluating(model), counted(model) as counter:
        model(*given)
    return counter.get_total_flops() // 2


@contextmanager
def counted(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Counts flops of a network, two for each MAC; its parameters need no gradients meanwhile.

    torch's counter fails on a module that is given one which does, such as a learnt query, where there are no
    gradients.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        with FlopCounterMode(display=False, custom_mapping=_KERNELS) as counter:
            yield counter
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def latency(model: nn.Module, *example: Any, repeats: int = 20, warm_up: int = 3) -> float:
    """Median seconds of one inference on the example, over `repeats` after `warm_up` unmeasured ones.

    Raises:
        ValueError: there is nothing to take the median of.

    Example:
        >>> import torch
        >>> from dpap.metrics import latency
        >>> latency(torch.nn.Linear(8, 32), torch.rand(1, 8)) < 1.0
        True
    """
    return statistics.median(latencies([model], *example, repeats=repeats, warm_up=warm_up)[0])


def latencies(
    models: Sequence[nn.Module], *example: Any, repeats: int = 20, warm_up: int = 3
) -> list[list[float]]:
    """Seconds of each of `repeats` inferences on the example, network by network.

    The networks take turns, so that what else the machine does falls on all of them alike.

    Raises:
        ValueError: nothing is to be measured.

    Example:
        >>> import torch
        >>> from dpap.metrics import latencies
        >>> wide, narrow = torch.nn.Linear(8, 32), torch.nn.Linear(8, 4)
        >>> [len(seconds) for seconds in latencies([wide, narrow], torch.rand(1, 8), repeats=5)]
        [5, 5]
    """
    if repeats < 1 or warm_up < 0:
        raise ValueError(f"repeats must be at least 1 and warm_up at least 0; got {repeats} and {warm_up}")
    on_gpu = (parameter.device for model in models for parameter in model.parameters() if parameter.is_cuda)
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(evaluating(model))
        calls = {number: partial(model, *example) for number, model in enumerate(models)}
        seconds = alternate(calls, repeats, next(on_gpu, torch.device("cpu")), warm_up=warm_up)
    return list(seconds.values())
