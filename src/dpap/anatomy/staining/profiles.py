"""Which slices of an activity hold what a pass detects: dye, activity, or values that may have changed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from dpap.anatomy.pytrees import float_tensors, nan_like

Detect = Literal["dye", "activity", "values"]
"""NaN; anything that is not zero; a number that changes as the values do."""


def along(profile: Tensor, axis: int, dimensions: int) -> Tensor:
    """Values along one axis, from the end, to be broadcast to an activity."""
    shape = [1] * dimensions
    shape[axis] = -1
    return profile.view(shape)


def found(activity: Tensor, detect: Detect) -> Tensor:
    return torch.isnan(activity) if detect == "dye" else activity != 0


def values_along(activity: Tensor, axis: int) -> Tensor:
    """A number for each slice along an axis, which changes where one of its values does."""
    values = activity.detach()
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    after = -1 - axis
    for place in range(values.ndim - 1):
        # the last axis first, so that the activity is read once and in order
        at = -1 if place < after else 0
        values = values.movedim(at, -1) @ _weights(values.shape[at], place, values)
    return values.cpu()


def _weights(count: int, place: int, like: Tensor) -> Tensor:
    """Weights of which no two are equal, from 1 to 2."""
    places = torch.arange(1, count + 1, dtype=torch.float64, device=like.device)
    return (1 + (places * (0.6180339887 + 0.0710678119 * place)).frac()).to(like.dtype)


def profile_of(activity: Tensor, axis: int, detect: Detect) -> Tensor:
    """Which slices along an axis hold what is detected, or a number for each."""
    others = [other for other in range(-activity.ndim, 0) if other != axis]
    if detect == "values":
        return values_along(activity, axis)
    if detect == "activity":
        strongest = activity.abs().amax(others) if others else activity
        return (strongest != 0).cpu()
    version, cached = _cached(activity)
    if version is not None and version == _version(activity) and axis in cached:
        return cached[axis]
    # a sum with NaN is NaN: the activity is read once, without a mask of its size
    profile = torch.isnan(activity.sum(others) if others else activity).cpu()
    cache_profile(activity, axis, profile)
    return profile


def profile_of_all(activity: Tensor, further: Any, axis: int, detect: Detect) -> Tensor:
    """The profile of a layer's first input; what is detected in a further one may reach whatever the first does."""
    profile = profile_of(activity, axis, detect)
    if detect == "values":
        return profile + sum(values_along(one, -1).sum() for one in float_tensors(further) if one.ndim)
    if detect == "dye" and any(bool(torch.isnan(one).any()) for one in float_tensors(further)):
        return torch.ones_like(profile)
    return profile


_CACHE: Any = WeakTensorKeyDictionary()


def _cached(activity: Tensor) -> tuple[int | None, dict[int, Bool[Tensor, "_"]]]:
    """What was cached of a tensor, and for which version of it."""
    cached: tuple[int | None, dict[int, Tensor]] = _CACHE.get(activity, (None, {}))
    return cached


def cache_profile(activity: Tensor, axis: int, profile: Tensor) -> None:
    """Cache which slices of a tensor are dyed, until it is changed in place."""
    version, cached = _cached(activity)
    now = _version(activity)
    if now is not None:
        _CACHE[activity] = (now, {**(cached if version == now else {}), axis: profile})


def _version(activity: Tensor) -> int | None:
    return None if activity.is_inference() else activity._version


def dyed(activity: Tensor, where: Bool[Tensor, "..."]) -> Tensor:
    """An activity with dye in some places."""
    return torch.where(where, nan_like(activity), activity)


def passes_dye(
    function: Callable[..., Any], activity: Tensor, inputs: Sequence[Any], options: Mapping[str, Any]
) -> bool:
    """Whether dye anywhere in an activity is dye exactly there in what comes of it.

    Args:
        function: of the activity.
        activity: one of its arguments.
        inputs, options: all of them.
    """
    somewhere = torch.rand(activity.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    here = dyed(torch.zeros_like(activity), somewhere.to(activity.device))
    given = [here if each is activity else each for each in inputs]
    rest = {name: here if each is activity else each for name, each in options.items()}
    return same_dye(here, function(*given, **rest))


def same_dye(given: Tensor, output: Any) -> bool:
    if not isinstance(output, Tensor) or output.shape != given.shape:
        return False
    return bool((torch.isnan(output) == torch.isnan(given)).all())
