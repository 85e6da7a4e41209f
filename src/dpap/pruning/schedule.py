"""When how much should be pruned."""


def scheduled_share(target: float, step: float, start: int, end: int) -> float:
    """Share that should be dead after `step` epochs: steep at first, then level, the whole target at `end`.

    The cubic of Zhu & Gupta (arXiv 1710.01878, equation 1), of the shape of the paper's Fig. 3f.
    """
    if step <= start:
        return 0.0
    progress = min((step - start) / (end - start), 1.0)
    return target * (1 - (1 - progress) ** 3)
