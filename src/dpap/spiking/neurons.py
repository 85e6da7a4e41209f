"""Spiking neurons over [T, B, ...]: a module is a layer of neurons, a forward is a whole presentation."""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dpap.spiking.integrate import integrate_and_fire
from dpap.spiking.rule import Rate, Rule
from dpap.spiking.surrogate import ArcTan, Surrogate

Reset = Literal["hard", "soft"]


class SpikingNeuron(nn.Module):
    """Base of the neurons: at rest before the first timestep, stateless between two forwards.

    A neuron fires, s_t = 1, when h_t >= threshold, else s_t = 0. Its membrane is then reset,
    hard: v_t = h_t (1 - s_t), or soft: v_t = h_t - threshold s_t. Without input it never fires.

    Args:
        threshold: of the membrane, positive.
        reset: "hard" or "soft".
        detach_reset: whether the reset is a constant to the gradient.
        surrogate: what replaces the derivative of the step.
        learn_surrogate: whether the layer learns how narrow the surrogate is: the gradient of the smooth step whose
            derivative it is. Spikes are the same.

    Attributes:
        compile_steps: set it to fuse the steps by torch.compile, where there is a C++ compiler; off at first.
    """

    time_axis = 0
    compile_steps = False
    __constants__: tuple[str, ...] = ("threshold", "reset")
    """What a stored network is compared by, besides its tensors; what only training depends on may be another."""

    def __init__(
        self,
        *,
        threshold: float = 1.0,
        reset: Reset = "hard",
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
        learn_surrogate: bool = False,
    ) -> None:
        super().__init__()
        if not (threshold > 0 and math.isfinite(threshold)):
            raise ValueError(
                f"threshold must be positive and finite, or neurons would fire without input; got {threshold}"
            )
        if reset not in get_args(Reset):
            raise ValueError(f'reset must be "hard" (to 0) or "soft" (by the threshold); got {reset!r}')
        self.threshold = float(threshold)
        self.reset = reset
        self.detach_reset = detach_reset
        self.surrogate: Surrogate = ArcTan() if surrogate is None else surrogate
        # a logarithm, so that it stays positive, and weight decay draws it to the surrogate that was given
        self.log_sharpness = nn.Parameter(torch.zeros(())) if learn_surrogate else None

    @property
    def sharpness(self) -> float:
        """Factor of the surrogate's alpha, or of 1 / width, that is learned so far; 1 where it is fixed."""
        return 1.0 if self.log_sharpness is None else float(self.log_sharpness.detach().exp())

    def rate(self) -> Rate:
        """1 / tau, the share of the distance to its input that a membrane covers in a step; None: no leak."""
        raise NotImplementedError

    def forward(self, current: Float[Tensor, "time batch *unit"]) -> Float[Tensor, "time batch *unit"]:
        """Spikes, exactly 0 or 1, of the currents of at least one timestep.

        A constant current may be expanded over time (`x.expand(T, ...)`); it is not copied.
        """
        if current.ndim < 2 or len(current) == 0:
            raise ValueError(
                "expected currents [time, batch, ...] of at least one timestep; got shape "
                f"{tuple(current.shape)}; repeat a constant input over time with x.expand(T, *x.shape)"
            )
        rule = Rule(self.threshold, self.reset == "hard", self.detach_reset, self.surrogate)
        sharpness = None if self.log_sharpness is None else self.log_sharpness.exp()
        return integrate_and_fire(
            current, self.rate(), rule, sharpness=sharpness, compile_steps=self.compile_steps
        )

    def extra_repr(self) -> str:
        """Settings, as `print` shows them."""
        detached = ", detach_reset=True" if self.detach_reset else ""
        learned = "" if self.log_sharpness is None else f", sharpness={self.sharpness:.4g}"
        return (
            f"threshold={self.threshold}, reset={self.reset!r}{detached}, surrogate={self.surrogate}{learned}"
        )


class IF(SpikingNeuron):
    """Integrate and fire: h_t = v_{t-1} + x_t.

    Example:
        >>> import torch
        >>> from dpap.spiking import IF
        >>> IF()(torch.full((6, 1, 1), 0.5)).flatten()  # a constant current over 6 timesteps
        tensor([0., 1., 0., 1., 0., 1.])
    """

    def rate(self) -> None:
        """No leak."""
        return


class LIF(SpikingNeuron):
    """Leaky integrate and fire: h_t = v_{t-1} + (x_t - v_{t-1}) / tau, tau > 1 in timesteps.

    Example:
        >>> import torch
        >>> from dpap.spiking import LIF
        >>> LIF(tau=2.0)(torch.full((6, 1, 1), 1.2)).flatten()  # a constant current over 6 timesteps
        tensor([0., 0., 1., 0., 0., 1.])
    """

    __constants__ = (*SpikingNeuron.__constants__, "tau")

    def __init__(
        self,
        tau: float = 2.0,
        *,
        threshold: float = 1.0,
        reset: Reset = "hard",
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
        learn_surrogate: bool = False,
    ) -> None:
        super().__init__(
            threshold=threshold,
            reset=reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
            learn_surrogate=learn_surrogate,
        )
        self.tau = _time_constant(tau)

    def rate(self) -> float:
        """1 / tau."""
        return 1 / self.tau

    def extra_repr(self) -> str:
        """Settings, as `print` shows them."""
        return f"tau={self.tau}, {super().extra_repr()}"


class PLIF(SpikingNeuron):
    """Leaky integrate and fire with a learned time constant shared by the layer (Fang et al., ICCV 2021).

    h_t = v_{t-1} + (x_t - v_{t-1}) / tau with 1 / tau = sigmoid(w), held above 1e-4;
    w starts at the given tau.

    Example:
        >>> import torch
        >>> from dpap.spiking import PLIF
        >>> neuron = PLIF(tau=2.0)
        >>> neuron(torch.full((6, 1, 1), 1.5)).sum().backward()
        >>> neuron.tau, bool(neuron.w.grad > 0)  # a smaller tau gives more spikes
        (2.0, True)
    """

    def __init__(
        self,
        tau: float = 2.0,
        *,
        threshold: float = 1.0,
        reset: Reset = "hard",
        detach_reset: bool = False,
        surrogate: Surrogate | None = None,
        learn_surrogate: bool = False,
    ) -> None:
        super().__init__(
            threshold=threshold,
            reset=reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
            learn_surrogate=learn_surrogate,
        )
        self.w = nn.Parameter(torch.tensor(-math.log(_time_constant(tau) - 1)))

    @property
    def tau(self) -> float:
        """The time constant that is learned so far, in timesteps."""
        return 1 / float(self.rate().detach())

    def rate(self) -> Float[Tensor, ""]:
        """1 / tau, of which gradients reach w."""
        return self.w.sigmoid().clamp(min=1e-4)

    def extra_repr(self) -> str:
        """Settings, as `print` shows them."""
        return f"tau={self.tau:.4g}, {super().extra_repr()}"


def _time_constant(tau: float) -> float:
    if not (tau > 1 and math.isfinite(tau)):
        raise ValueError(f"tau must be greater than 1 timestep and finite; got {tau}; IF has no leak at all")
    return float(tau)
