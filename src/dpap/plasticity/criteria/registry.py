"""Criteria by name: the one place that says which there are."""

from dpap.plasticity.criteria.base import Criterion

CRITERIA: dict[str, Criterion] = {}
"""Every registered criterion, in the order of registration."""


def register_criterion(name: str, criterion: Criterion, *, replace: bool = False) -> None:
    """Make a criterion known, to `PruningConfig(criterion=name)` and everywhere else.

    Args:
        name: a word; it stands in configurations and in saved states, so register it before these are loaded.
        criterion: keeps nothing between calls, for one instance serves all layers and networks: what it remembers of
            a layer belongs to `Statistics`.
        replace: whether another criterion of that name may be replaced.

    Raises:
        TypeError: where it is no criterion, or lacks what one must define.
        ValueError: where the name is no word, or is taken.

    Example:
        >>> import dpap
        >>> class Spread(dpap.Criterion):
        ...     '''What has incoming weights of all sizes is important.'''
        ...     observes = False
        ...     def unit_importance(self, layer):
        ...         return layer.weight().std(1)
        ...     def synapse_importance(self, layer):
        ...         return layer.magnitudes()
        >>> dpap.register_criterion("spread", Spread(), replace=True)
        >>> dpap.PruningConfig(criterion="spread").criterion
        'spread'
    """
    if isinstance(criterion, type) and issubclass(criterion, Criterion):
        raise TypeError(f"register_criterion expects an instance; got the class: give {criterion.__name__}()")
    if not isinstance(criterion, Criterion):
        raise TypeError(f"register_criterion expects a dpap.Criterion; got {type(criterion).__name__}")
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(
            f"the name of a criterion is a word of letters, digits and underscores; got {name!r}"
        )
    if name in CRITERIA and not replace:
        raise ValueError(
            f"a criterion {name!r} is registered already ({type(CRITERIA[name]).__name__}); choose another name, or "
            "give replace=True"
        )
    needed = _needed(criterion)
    lacking = [each for each in needed if getattr(type(criterion), each) is getattr(Criterion, each)]
    if lacking:
        does = (
            "observes activity"
            if criterion.observes
            else "observes gradients"
            if criterion.observes_gradients
            else "observes nothing (observes = False)"
        )
        raise TypeError(f"{type(criterion).__name__} {does}, so it must define {' and '.join(lacking)}")
    CRITERIA[name] = criterion


def _needed(criterion: Criterion) -> tuple[str, ...]:
    """The methods that a criterion must define."""
    if criterion.observes:
        return ("observe_units", "observe_synapses")
    return (
        ("observe_contribution",)
        if criterion.observes_gradients
        else ("unit_importance", "synapse_importance")
    )
