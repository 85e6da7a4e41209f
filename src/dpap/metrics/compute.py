"""Dense computation of one forward pass, and its time."""

import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dpap.metrics.layers import evaluating


def macs(model: nn.Module, *example: Any) -> int:
    """Multiply-accumulates of one inference on the example, zeros and padding included.

    Those of convolutions, matrix products and attention, of all samples and timesteps together.

    Example:
        >>> import torch
        >>> from dpap.metrics import macs
        >>> macs(torch.nn.Conv2d(1, 4, 3), torch.rand(1, 1, 8, 8))
        1296
    """
    with evaluating(model), FlopCounterMode(display=False) as counter:
        model(*example)
    return counter.get_total_flops() // 2


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
    if repeats < 1 or warm_up < 0:
        raise ValueError(f"repeats must be at least 1 and warm_up at least 0; got {repeats} and {warm_up}")
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    seconds = []
    with evaluating(model):
        for _ in range(warm_up + repeats):
            _synchronise(devices)
            start = time.perf_counter()
            model(*example)
            _synchronise(devices)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warm_up:])


def _synchronise(devices: set[torch.device]) -> None:
    for device in devices:
        torch.cuda.synchronize(device)
