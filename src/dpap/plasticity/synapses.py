"""Synaptic importance: the BCM rule and its sliding threshold, equations (3) to (6)."""

from jaxtyping import Float
from torch import Tensor


def potentiation(
    post: Float[Tensor, "batch unit"], threshold: Float[Tensor, "*slot unit"]
) -> Float[Tensor, "batch unit"]:
    """The postsynaptic factor S_post (S_post - theta) of (3): positive above a unit's usual activity."""
    return post * (post - threshold)


def bcm(
    pre: Float[Tensor, "batch feature"],
    post: Float[Tensor, "batch unit"],
    threshold: Float[Tensor, "*slot unit"],
) -> Float[Tensor, "unit feature"]:
    """BCM = S_pre S_post (S_post - theta), (3), summed over the samples of a batch.

    `threshold` is one value per unit, or one per sample and unit. (6) is its sum over an epoch's batches.
    """
    return potentiation(post, threshold).T @ pre


def sliding_threshold(
    threshold: Float[Tensor, " unit"], samples: int, post: Float[Tensor, "batch unit"]
) -> Float[Tensor, " unit"]:
    """Mean trace of each unit over all samples so far, (4) and (5).

    `threshold` is the mean over the `samples` before this batch.
    """
    return threshold + (post.sum(0) - len(post) * threshold) / (samples + len(post))
