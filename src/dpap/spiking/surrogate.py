"""Surrogate gradients: what stands in for the derivative of the Heaviside step of a spike.

Each is a density of area 1, largest at the threshold; `primitive` is the smooth step whose derivative it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class Surrogate:
    """A smooth step and its derivative, functions of the distance `x` of the membrane from the threshold."""

    def primitive(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The smooth step, from 0 to 1."""
        raise NotImplementedError

    def chain_(
        self, x: Float[Tensor, "*any"], upstream: Float[Tensor, "*any"], scale: float = 1.0
    ) -> Float[Tensor, "*any"]:
        """Overwrite `x` with `scale` times the derivative there times `upstream`."""
        raise NotImplementedError

    def formula(self) -> tuple[str, float]:
        """The derivative's name in `triton_source` and its parameter, of a class that defines this itself."""
        raise NotImplementedError

    def derivative(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """The derivative at `x`."""
        return self.chain_(x.clone(), torch.ones_like(x))


def _check_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} of a surrogate must be positive and finite; got {value}; 1 to 4 is usual")


@dataclass(frozen=True)
class ArcTan(Surrogate):
    """a / (2 (1 + (pi a x / 2)^2)), derivative of arctan(pi a x / 2) / pi + 1/2 (Fang et al., ICCV 2021).

    Example:
        >>> import torch
        >>> from dpap.spiking import LIF, ArcTan
        >>> ArcTan(alpha=2.0).derivative(torch.tensor([-1.0, 0.0, 0.5]))
        tensor([0.0920, 1.0000, 0.2884])
        >>> LIF(surrogate=ArcTan(alpha=4.0)).surrogate
        ArcTan(alpha=4.0)
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)

    def primitive(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """arctan(pi a x / 2) / pi + 1/2."""
        return torch.atan(x * (math.pi / 2 * self.alpha)) / math.pi + 0.5

    def formula(self) -> tuple[str, float]:
        return "arctan", self.alpha

    def chain_(
        self, x: Float[Tensor, "*any"], upstream: Float[Tensor, "*any"], scale: float = 1.0
    ) -> Float[Tensor, "*any"]:
        # upstream scale a/2 / (1 + b x^2) = upstream / (q + p x^2), in two passes
        q = 2 / (self.alpha * scale)
        torch.addcmul(x.new_tensor(q), x, x, value=q * (math.pi / 2 * self.alpha) ** 2, out=x)
        return torch.div(upstream, x, out=x)


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """a y (1 - y), derivative of y = sigmoid(a x).

    Example:
        >>> import torch
        >>> from dpap.spiking import Sigmoid
        >>> Sigmoid(alpha=4.0).derivative(torch.tensor([-1.0, 0.0, 0.5]))
        tensor([0.0707, 1.0000, 0.4200])
    """

    alpha: float = 4.0

    def __post_init__(self) -> None:
        _check_positive("alpha", self.alpha)

    def primitive(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """sigmoid(a x)."""
        return torch.sigmoid(x * self.alpha)

    def formula(self) -> tuple[str, float]:
        return "sigmoid", self.alpha

    def chain_(
        self, x: Float[Tensor, "*any"], upstream: Float[Tensor, "*any"], scale: float = 1.0
    ) -> Float[Tensor, "*any"]:
        y = x.mul_(self.alpha).sigmoid_()
        y.addcmul_(y, y, value=-1).mul_(self.alpha * scale)
        return y.mul_(upstream)


@dataclass(frozen=True)
class Triangle(Surrogate):
    """max(0, 1 - |x| / w) / w: a hat that is 0 from a distance w on (Bellec et al., 2018).

    Example:
        >>> import torch
        >>> from dpap.spiking import Triangle
        >>> Triangle(width=1.0).derivative(torch.tensor([-1.0, 0.0, 0.5]))
        tensor([0.0000, 1.0000, 0.5000])
    """

    width: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("width", self.width)

    def primitive(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """1/2 + u - u |u| / 2 with u = x / w held within [-1, 1]."""
        u = (x / self.width).clamp(-1, 1)
        return 0.5 + u - 0.5 * u * u.abs()

    def formula(self) -> tuple[str, float]:
        return "triangle", self.width

    def chain_(
        self, x: Float[Tensor, "*any"], upstream: Float[Tensor, "*any"], scale: float = 1.0
    ) -> Float[Tensor, "*any"]:
        x.abs_().mul_(-scale / self.width**2).add_(scale / self.width).clamp_(min=0)
        return x.mul_(upstream)


SURROGATES: dict[str, Callable[..., Surrogate]] = {
    "arctan": ArcTan,
    "sigmoid": Sigmoid,
    "triangle": Triangle,
}
