"""From importance to survival: normalisation and equations (9) to (11)."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def normalise(
    importance: Float[Tensor, "*unit"], alive: Bool[Tensor, "*unit"], quantile: float = 1.0
) -> Float[Tensor, "*unit"]:
    """Importance mapped linearly to [0, 1] over what is alive: the Normalized of (9).

    The least is 0, the given quantile and what lies above it 1: 1.0 is min-max, 0.75 the clip of the released
    code. All that is alive is 0.5 where quantile and minimum coincide; the dead are 0.

    Raises:
        ValueError: the importance of something alive is not a finite number.
    """
    values = _finite(importance[alive])
    if values.numel() == 0:
        return torch.zeros_like(importance)
    low = values.min()
    high = values.max() if quantile == 1 else _quantile(values, quantile)
    if high <= low:
        return alive * torch.full_like(importance, 0.5)
    return torch.where(alive, ((importance - low) / (high - low)).clamp(0, 1), 0)


def ranked(importance: Float[Tensor, "*unit"], alive: Bool[Tensor, "*unit"]) -> Float[Tensor, "*unit"]:
    """Importance mapped to its rank over what is alive, from 0 (the least) to 1: ours, in place of (9)'s linear map.

    Equals share the mean of their ranks, one alone has 0.5; the dead are 0. However skewed a criterion's values are,
    the same share of every layer lies below a given value, so that no layer dies before the others for its skew.

    Raises:
        ValueError: the importance of something alive is not a finite number.
    """
    values = _finite(importance[alive])
    result = torch.zeros_like(importance)
    if values.numel():
        _, place, counts = values.unique(return_inverse=True, return_counts=True)
        last = counts.cumsum(0)
        middle = (2 * last - counts - 1).to(importance.dtype) / 2
        result[alive] = middle[place] / (values.numel() - 1) if values.numel() > 1 else middle[place] + 0.5
    return result


def _finite(values: Float[Tensor, " unit"]) -> Float[Tensor, " unit"]:
    if not values.isfinite().all():
        raise ValueError(
            f"importance must be finite; got {int((~values.isfinite()).sum())} of {values.numel()} alive "
            "values that are not: the activity has overflowed; lower the learning rate"
        )
    return values


def _quantile(values: Float[Tensor, " unit"], quantile: float) -> Float[Tensor, ""]:
    """Quantile with linear interpolation, without the 2^24 elements that torch.quantile is limited to."""
    ordered = values.sort().values
    position = quantile * (len(ordered) - 1)
    below = math.floor(position)
    above = math.ceil(position)
    return torch.lerp(ordered[below], ordered[above], position - below)


def survival_change(
    normalised: Float[Tensor, "*unit"], epsilon: float, protection: float, strict: bool = False
) -> Float[Tensor, "*unit"]:
    """Change of survival dF: delta = 2 N - epsilon (9), plus the protection C where delta >= 0 (10).

    `strict` protects only delta > 0, as the released code does.
    """
    delta = 2 * normalised - epsilon
    useful = delta > 0 if strict else delta >= 0
    return torch.where(useful, delta + protection, delta)


def update_survival(
    survival: Float[Tensor, "*unit"], change: Float[Tensor, "*unit"], gamma: float, decay: float
) -> Float[Tensor, "*unit"]:
    """Survival F' = gamma F + decay dF, (11), where decay is exp(-epoch/eta). What falls below zero dies."""
    return gamma * survival + decay * change


def exponential_decay(epoch: int, eta: float) -> float:
    """The exp(-epoch/eta) of (11): early epochs move survival most."""
    return math.exp(-epoch / eta)


def staircase_decay(epoch: int, eta: float, start: int) -> float:
    """The released code's exp(-floor((epoch - start)/eta)); 1 up to epoch `start`."""
    return math.exp(-math.floor(max(epoch - start, 0) / eta))


def critical_epsilon(
    normalised: Float[Tensor, "*unit"], survival: Float[Tensor, "*unit"], gamma: float, decay: float
) -> Float[Tensor, "*unit"]:
    """Decay value above which a unit of survival F >= 0 dies in this update: 2 N + gamma F / decay.

    It dies where gamma F + decay dF < 0. With delta >= 0 no term is negative, whatever the protection C >= 0
    and whichever the comparison of (10), so it stays alive. With delta < 0 there is no protection, and gamma F +
    decay (2 N - epsilon) < 0 rearranges to the value above, which is at least 2 N and so implies delta < 0.
    Infinite where decay is 0, which kills nothing. At the value itself rounding decides: choose between two.
    """
    if decay == 0:
        return torch.full_like(normalised, math.inf)
    return 2 * normalised + gamma * survival / decay
