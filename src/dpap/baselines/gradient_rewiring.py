"""Grad R: every weight has a parameter that may fall below zero, where the weight is gone, and rise again.

Y. Chen, Z. Yu, W. Fang, T. Huang, Y. Tian, "Pruning of Deep Spiking Neural Networks through Gradient Rewiring",
IJCAI 2021, arXiv 2105.04916.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy.pytrees import Inputs
from dpap.baselines.base import Baseline, Weights
from dpap.pruning.config import PruningConfig


@dataclass(frozen=True)
class GradientRewiringConfig:
    """The prior of Grad R.

    Alpha decides how much dies. A theta that the loss does not hold sinks by alpha times the sum of all learning
    rates; mu lies so far below zero, at ln(2 - 2 target) / alpha, that hardly any theta gets there, and `target`,
    which only places mu, hardly matters. The authors' runs sum up to hundreds of times the steps of a short one.

    Attributes:
        alpha: scale of the Laplacian prior, and strength of its pull: larger prunes more. 1e-3 is that of the
            authors' code, for 512 to 2048 epochs; for a share of zeros in a run of your own, search for it.
    """

    alpha: float = 1e-3

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"rewiring.alpha must be above 0; got {self.alpha}")


class GradientRewiring(Baseline):
    """Learns connectivity and weights together.

    A weight is w = s relu(theta), with the sign s of its initial value. Theta follows the gradient s dL/dw also where
    it is negative and the weight is zero, so that a synapse can come back, and the gradient
    alpha sign(theta - mu) of a Laplacian prior around `location(target, alpha)`.

    The optimizer is the user's. Before its step each weight becomes s theta, whose gradient is dL/dw, for s² = 1; after
    it theta is read back, the prior moves it by the learning rate times its gradient, and the weight becomes
    s relu(theta) again. With plain SGD that is the paper's update to the letter. With Adam and the like the moments are
    of the loss's gradient alone and the prior is added to the step, as in the authors' code (which divides the prior,
    too, by Adam's bias correction of the first moment: ours is weaker for the first few dozen steps). Weight decay
    would pull dead weights back, and theirs has none: where the optimizer has any, these weights move to a parameter
    group of their own without it; build schedulers of the learning rate afterwards.

    The prior acts from the first to the last step: no schedule, `start_epoch` and `end_epoch` change nothing. Nothing
    makes sure that `target` is met: see `GradientRewiringConfig`.

    Args:
        model: see `Baseline`. Its weights are those of theta from now on; what is written into them is lost.
        example_inputs: see `Baseline`.
        optimizer: see `Baseline`; steps without a closure.
        config: see `Baseline`.
        rewiring: the prior.

    Raises:
        ValueError: also without an optimizer.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> from dpap.baselines import GradientRewiring, GradientRewiringConfig
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> config = dpap.PruningConfig(target=0.5, end_epoch=2)
        >>> pruner = GradientRewiring(model, torch.rand(4, 8), optimizer, config, GradientRewiringConfig(alpha=0.1))
        >>> for batch in range(20):
        ...     model(torch.rand(64, 8)).square().mean().backward()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        >>> 0.2 < pruner.sparsity < 0.5  # the prior has taken some weights below zero
        True
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Inputs,
        optimizer: Optimizer | Sequence[Optimizer] | None,
        config: PruningConfig,
        rewiring: GradientRewiringConfig | None = None,
    ) -> None:
        super().__init__(model, example_inputs, optimizer, config)
        if not self._optimizers:
            raise ValueError("GradientRewiring needs the optimizer that moves the weights; got none")
        self._alpha = (rewiring or GradientRewiringConfig()).alpha
        self._mu = location(self._target, self._alpha)
        self._signs = {name: weight.detach().sign() for name, weight in self.weights.items()}
        self._theta = {name: weight.detach().abs() for name, weight in self.weights.items()}
        self._name_of = {id(weight): name for name, weight in self.weights.items()}
        self._handles: list[Any] = []
        for one in self._optimizers:
            self._exempt_from_decay(one)
            self._handles.append(one.register_step_pre_hook(self._before_step))
            self._handles.append(one.register_step_post_hook(self._after_step))

    def alive_weights(self) -> dict[str, Bool[Tensor, "..."]]:
        """Where theta is above zero; a weight that is zero at first has no sign, and stays so."""
        return {name: theta > 0 for name, theta in self._theta.items()}

    def detach(self) -> None:
        """Remove every hook; the weights keep their values until they are written."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _end_epoch(self) -> float:
        return self._target

    def _state(self) -> dict[str, Weights]:
        return {"theta": self._theta, "signs": self._signs}

    def _write_weights(self) -> None:
        for name in self.weights:
            self._write(name)

    def _write(self, name: str) -> None:
        """Set a weight to s relu(theta)."""
        self.weights[name].copy_(self._signs[name] * self._theta[name].clamp(min=0))

    def _exempt_from_decay(self, optimizer: Optimizer) -> None:
        """Move these weights to a group of their own wherever weights decay."""
        for group in list(optimizer.param_groups):
            ours = [id(parameter) in self._name_of for parameter in group["params"]]
            if not group.get("weight_decay") or not any(ours):
                continue
            exempt = {**group, "weight_decay": 0.0}
            for key in ("params", "param_names"):
                if key in group:
                    exempt[key] = [one for one, own in zip(group[key], ours, strict=True) if own]
                    group[key] = [one for one, own in zip(group[key], ours, strict=True) if not own]
            optimizer.add_param_group(exempt)

    def _moved(self, optimizer: Optimizer) -> Iterator[tuple[str, float]]:
        """The weights that a step of an optimizer moves, and their learning rates."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and id(parameter) in self._name_of:
                    yield self._name_of[id(parameter)], float(group["lr"])

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if any(closure is not None for closure in (*args[1:2], kwargs.get("closure"))):
            raise RuntimeError(
                "GradientRewiring expects optimizer.step() without a closure, which would run the network "
                "on other weights than its own: call loss.backward() before the step"
            )
        for name, _ in self._moved(optimizer):
            self.weights[name].copy_(self._signs[name] * self._theta[name])

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for name, rate in self._moved(optimizer):
            theta = self._theta[name]
            pull = (theta - self._mu).sign_().mul_(rate * self._alpha)
            torch.mul(self._signs[name], self.weights[name], out=theta)
            theta.sub_(pull)
            self._write(name)


def location(target: float, alpha: float) -> float:
    """Mu, for which a share `target` of a Laplacian of density alpha / 2 exp(-alpha |theta - mu|) lies below zero."""
    return math.log(2 - 2 * target) / alpha if target >= 0.5 else -math.log(2 * target) / alpha
