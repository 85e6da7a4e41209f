"""Gradual magnitude pruning: the smallest weights of every layer are masked, more and more of them.

M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
arXiv 1710.01878.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy.pytrees import Inputs
from dpap.baselines.base import Baseline, Weights
from dpap.pruning.config import PruningConfig
from dpap.pruning.schedule import scheduled_share
from dpap.surgery import Silence
from dpap.surgery.compiled import recompile


class GradualMagnitude(Baseline):
    """Masks the weights of least absolute value until every layer has the sparsity s_t of equation (1).

    The masks grow at each `step()`, so that the paper's Delta t is an epoch, from s_i = 0 at `start_epoch` to
    `target` at `end_epoch`. A masked weight is zero after every step of the optimizer, has neither gradient nor
    moments, and stays masked. No layer loses its last weight.

    Args:
        model: see `Baseline`.
        example_inputs: see `Baseline`.
        optimizer: see `Baseline`; without one masked weights are cleared before every forward.
        config: see `Baseline`.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> from dpap.baselines import GradualMagnitude
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1)
        >>> pruner = GradualMagnitude(model, torch.rand(4, 8), None, config)
        >>> report = pruner.step()
        >>> report.sparsity, int(model[0].weight.count_nonzero())
        (0.5, 128)
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Inputs,
        optimizer: Optimizer | Sequence[Optimizer] | None,
        config: PruningConfig,
    ) -> None:
        super().__init__(model, example_inputs, optimizer, config)
        self._alive = {
            name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self.weights.items()
        }
        self._silence = Silence(self.model, self.wiring, self._optimizers)
        recompile()

    def alive_weights(self) -> dict[str, Bool[Tensor, "..."]]:
        """The masks."""
        return self._alive

    def detach(self) -> None:
        """Remove every hook; masked weights stay zero until they are written."""
        self._silence.remove()
        recompile()

    def _end_epoch(self) -> float:
        due = scheduled_share(self._target, self.epoch + 1.0, self.config.start_epoch, self._end)
        if self.config.start_epoch <= self.epoch < self._end:
            for name, weight in self.weights.items():
                dead = min(round(due * weight.numel()), weight.numel() - 1)
                self._alive[name] = _all_but_smallest(weight, self._alive[name], dead)
            self._write_weights()
        return due

    def _state(self) -> dict[str, Weights]:
        return {"alive": self._alive}

    def _write_weights(self) -> None:
        self._silence.hold([(weight, ~self._alive[name]) for name, weight in self.weights.items()])


def _all_but_smallest(weight: Tensor, alive: Bool[Tensor, "..."], count: int) -> Bool[Tensor, "..."]:
    """All but so many weights, the dead first, then the smallest; between equals the first in the layer goes."""
    order = weight.abs().masked_fill(~alive, -1).flatten().argsort(stable=True)
    kept = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    kept[order[:count]] = False
    return kept.view(weight.shape)
