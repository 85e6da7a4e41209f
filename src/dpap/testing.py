"""Checks for what users add, for their tests: every shipped criterion passes the same."""

import copy
import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dpap.plasticity import CRITERIA, Contribution, Criterion, LayerContext, Statistics
from dpap.pruning.config import PruningConfig
from dpap.pruning.pruner import Pruner
from dpap.spiking import LIF, FoldTime

UNITS, FEATURES, TIME, BATCH = 6, 5, 3, 4


def check_criterion(name: str) -> None:
    """Check that a registered criterion gives pruning what it needs.

    Importances must have their shapes and be finite, be the same for the same seed and observations, whatever
    precision they are observed in and whether or not single synapses die, and go on from a saved state and through a
    removal. Then two small networks, a spiking and an ordinary one, are pruned by it to a target, interrupted, resumed
    and compacted. That it chooses well is for a comparison to show.

    Args:
        name: of the criterion, as it was registered.

    Raises:
        KeyError: where no criterion of that name is registered.
        AssertionError: where a check fails; its message says which, what was expected and what came.

    Example:
        >>> import dpap.testing
        >>> dpap.testing.check_criterion("magnitude")
    """
    if name not in CRITERIA:
        raise KeyError(f"no criterion {name!r} is registered; there are {', '.join(CRITERIA)}")
    for check in _CHECKS:
        try:
            check(name, CRITERIA[name])
        except AssertionError as error:
            raise AssertionError(f"criterion {name!r}: {error}") from error
        except Exception as error:
            words = check.__name__.strip("_").replace("_", " ")
            raise AssertionError(f"criterion {name!r}: {words}: {type(error).__name__}: {error}") from error


def _importances_have_their_shapes(name: str, criterion: Criterion) -> None:
    layer = _context(name, _observed(criterion))
    found = _importances(criterion, layer)
    shapes = {"unit": (UNITS,), "synapse": (UNITS, FEATURES), "timestep": (TIME, UNITS)}
    for part, importance in found.items():
        _expect(
            tuple(importance.shape) == shapes[part], f"{part}_importance has", shapes[part], importance.shape
        )
        _expect(importance.is_floating_point(), f"{part}_importance is of", "floats", importance.dtype)
        _expect(bool(importance.isfinite().all()), f"{part}_importance is", "finite", importance)
    _expect(len(found["unit"].unique()) > 1, "unit_importance tells", "units apart", found["unit"])


def _importances_are_deterministic(name: str, criterion: Criterion) -> None:
    first, second = (_importances(criterion, _context(name, _observed(criterion))) for _ in range(2))
    layer = _context(name, _observed(criterion))
    once, twice = (
        {part: value.clone() for part, value in _importances(criterion, layer).items()} for _ in range(2)
    )
    for part in first:
        _expect(
            torch.equal(first[part], second[part]),
            f"{part}_importance of equal statistics is",
            "equal",
            "not",
        )
        _expect(torch.equal(once[part], twice[part]), f"{part}_importance, called twice, is", "equal", "not")


def _units_count_alike_without_synapses(name: str, criterion: Criterion) -> None:
    of_whole, of_rows = (
        criterion.unit_importance(_context(name, _observed(criterion, synapses=synapses)))
        for synapses in (True, False)
    )
    _expect(
        torch.allclose(of_whole, of_rows, rtol=1e-9),
        "unit_importance is",
        "the same where single synapses do not die",
        of_rows - of_whole,
    )


def _observing_needs_no_gradients_nor_full_precision(name: str, criterion: Criterion) -> None:
    if criterion.observes_gradients:
        return
    low = criterion.blank(1, 2, synapses=True)
    exact = criterion.blank(1, 2, synapses=True, dtype=torch.float64)
    pre = torch.full((1, 1, 2), 129.0, dtype=torch.bfloat16, requires_grad=True)
    post = torch.full((1, 1, 1), 129.0, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        criterion.observe(low, pre, post, 0.5)
    criterion.observe(exact, pre.detach().double(), post.detach().double(), 0.5)
    for part in ("units", "synapses"):
        ours, theirs = getattr(low, part), getattr(exact, part)
        _expect(not ours.requires_grad, f"sums of {part} have", "no gradient", "one")
        _expect(ours.dtype == torch.float32, f"sums of {part} stay", torch.float32, ours.dtype)
        near = torch.allclose(ours.double(), theirs, rtol=1e-6, atol=0)
        _expect(near, f"sums of {part} in bfloat16 are", theirs, ours)


def _normalised_importance_is_a_share(name: str, criterion: Criterion) -> None:
    importance = _importances(criterion, _context(name, _observed(criterion)))["unit"]
    alive = torch.arange(UNITS) != 2
    share = criterion.normalise(importance, alive)
    _expect(
        bool(((share >= 0) & (share <= 1))[alive].all()),
        "normalise maps to",
        "[0, 1] over what is alive",
        share,
    )
    decays = [criterion.decay(epoch, 12.0) for epoch in range(50)]
    falls = all(0 < now <= 1 for now in decays) and all(a >= b for a, b in itertools.pairwise(decays))
    _expect(falls, "decay is", "in (0, 1] and never rises", decays)
    _expect(math.isfinite(sum(decays)), "decay is", "finite", decays)


def _statistics_follow_a_removal(name: str, criterion: Criterion) -> None:
    statistics, kept = _observed(criterion), torch.tensor([0, 2, 5])
    statistics.keep(kept, torch.tensor([1, 2, 3, 4]))
    _observe(criterion, statistics, seed=7, units=3, features=4)
    layer = _context(name, statistics, units=3, features=4)
    shapes = {"unit": (3,), "synapse": (3, 4), "timestep": (TIME, 3)}
    for part, importance in _importances(criterion, layer).items():
        _expect(tuple(importance.shape) == shapes[part], f"after a removal {part}_importance has", shapes[part],
                importance.shape)  # fmt: skip


def _statistics_go_on_from_a_saved_state(name: str, criterion: Criterion) -> None:
    statistics, restored = _observed(criterion), _blank(criterion)
    restored.load_state_dict(statistics.state_dict())
    for each in (statistics, restored):
        _observe(criterion, each, seed=8)
    here, there = (_importances(criterion, _context(name, each)) for each in (statistics, restored))
    for part in here:
        same = torch.equal(here[part], there[part])
        _expect(same, f"{part}_importance after state_dict and load_state_dict is", "the same", "another")


def _groups_of_a_convolution_count_alone(name: str, criterion: Criterion) -> None:
    if criterion.observes_gradients:
        return
    whole = criterion.blank(UNITS, 1, synapses=False, timesteps=TIME)
    separate = [criterion.blank(UNITS // 2, 1, synapses=False, timesteps=TIME) for _ in range(2)]
    pre, post = _activity(3, 2), _activity(4, UNITS)
    parts = whole.parts(2)
    for at, (part, alone) in enumerate(zip(parts, separate, strict=True)):
        for each in (part, alone):
            criterion.observe(each, pre[:, :, at : at + 1], post[:, :, 3 * at : 3 * at + 3], 0.5)
    whole.rejoin(parts)
    joined = torch.cat([each.units for each in separate])
    _expect(
        torch.equal(whole.units, joined),
        "sums of a grouped convolution are",
        "those of each group",
        whole.units,
    )


def _networks_are_pruned_to_their_target(name: str, criterion: Criterion) -> None:
    for spiking in (False, True):
        _prune(name, spiking)


_CHECKS: tuple[Callable[[str, Criterion], None], ...] = (
    _importances_have_their_shapes,
    _importances_are_deterministic,
    _units_count_alike_without_synapses,
    _observing_needs_no_gradients_nor_full_precision,
    _normalised_importance_is_a_share,
    _statistics_follow_a_removal,
    _statistics_go_on_from_a_saved_state,
    _groups_of_a_convolution_count_alone,
    _networks_are_pruned_to_their_target,
)


def _prune(name: str, spiking: bool) -> None:
    """Prune half of a network's weights in three epochs, once whole and once resumed from a copy after two."""
    config = PruningConfig(
        criterion=name, target=0.5, start_epoch=1, end_epoch=3, observe_every=1,
        timestep_target=0.2 if spiking else None,
    )  # fmt: skip
    kind = "spiking" if spiking else "ordinary"
    model, x, labels = _network(spiking)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    pruner = Pruner(model, x[:, :2] if spiking else x[:2], optimizer, config)
    for epoch in range(3):
        if epoch == 2:
            saved = copy.deepcopy((pruner.state_dict(), model.state_dict(), optimizer.state_dict()))
        _train(model, x, labels, optimizer)
        pruner.step()
    _expect(
        abs(pruner.sparsity - 0.5) <= 0.01,
        f"of the {kind} network is pruned",
        "50 %",
        f"{pruner.sparsity:.1%}",
    )
    resumed, _, _ = _network(spiking)
    resumed_optimizer = torch.optim.Adam(resumed.parameters(), lr=0.01)
    second = Pruner(resumed, x[:, :2] if spiking else x[:2], resumed_optimizer, config)
    second.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    resumed_optimizer.load_state_dict(saved[2])
    _train(resumed, x, labels, resumed_optimizer)
    second.step()
    same = all(
        torch.equal(one, other) for one, other in zip(model.parameters(), resumed.parameters(), strict=True)
    )
    _expect(same, f"a resumed run of the {kind} network ends at", "the same bits", "others")
    before = model.eval()(x).detach()
    pruner.compact()
    after = model(x).detach()
    _expect(torch.allclose(before, after, atol=1e-9), f"the compact {kind} network gives", before, after)


def _network(spiking: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """A convolutional network in double precision, its input ([T, B, 2, 4, 4] if spiking) and classes."""
    generator = torch.Generator().manual_seed(0)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 8, 3, padding=1)
    model = nn.Sequential(
        FoldTime(convolution) if spiking else convolution,
        LIF() if spiking else nn.ReLU(),
        nn.Flatten(2 if spiking else 1),
        nn.Linear(128, 20),
        LIF() if spiking else nn.ReLU(),
        nn.Linear(20, 3),
    ).double()
    torch.random.set_rng_state(state)
    shape = (TIME, 16, 2, 4, 4) if spiking else (16, 2, 4, 4)
    x = 3 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return model, x, torch.randint(3, (16,), generator=generator)


def _train(model: nn.Module, x: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        output = model(x)
        nn.functional.cross_entropy(output.mean(0) if x.ndim == 5 else output, labels).backward()
        optimizer.step()


def _blank(criterion: Criterion, synapses: bool = True) -> Statistics:
    return criterion.blank(UNITS, FEATURES, synapses=synapses, timesteps=TIME, dtype=torch.float64)


def _observed(criterion: Criterion, synapses: bool = True) -> Statistics:
    """Statistics of two batches."""
    statistics = _blank(criterion, synapses)
    for seed in range(2):
        _observe(criterion, statistics, seed)
    return statistics


def _observe(
    criterion: Criterion, statistics: Statistics, seed: int, units: int = UNITS, features: int = FEATURES
) -> None:
    if criterion.observes_gradients:
        criterion.observe_contribution(statistics, _contribution(statistics, seed))
        return
    criterion.observe(statistics, _activity(2 * seed, features), _activity(2 * seed + 1, units), 0.5)


def _contribution(statistics: Statistics, seed: int) -> Contribution:
    generator = torch.Generator().manual_seed(seed)

    def drawn(like: Tensor | None) -> Tensor | None:
        return None if like is None else torch.randn(like.shape, generator=generator, dtype=like.dtype)

    units = torch.randn(statistics.units.shape, generator=generator, dtype=statistics.units.dtype)
    return Contribution(units, drawn(statistics.synapses), drawn(statistics.timesteps))


def _activity(seed: int, features: int) -> Tensor:
    return torch.rand(TIME, BATCH, features, generator=torch.Generator().manual_seed(seed)).double()


def _context(name: str, statistics: Statistics, units: int = UNITS, features: int = FEATURES) -> LayerContext:
    weight = torch.randn(units, features, generator=torch.Generator().manual_seed(9)).double()
    return LayerContext(statistics, lambda: weight, "fc", 0, 0)


def _importances(criterion: Criterion, layer: LayerContext) -> dict[str, Tensor]:
    return {
        "unit": criterion.unit_importance(layer),
        "synapse": criterion.synapse_importance(layer),
        "timestep": criterion.timestep_importance(layer),
    }


def _expect(holds: bool, what: str, expected: object, got: object) -> None:
    if not holds:
        raise AssertionError(f"{what} {expected}; got {got}")
