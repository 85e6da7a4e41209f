import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpap.plasticity import CRITERIA

TENSORS = ("threshold", "units", "activity", "synapses", "timesteps")


def observed(criterion, batches=2, units=4, features=5, synapses=True, timesteps=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    statistics = criterion.blank(units, features, synapses=synapses, timesteps=timesteps, dtype=torch.float64)
    for _ in range(batches):
        criterion.observe(statistics, *batch(generator, units, features, timesteps))
    return statistics


def batch(generator, units=4, features=5, timesteps=3, samples=2):
    def rand(*shape):
        return torch.rand(shape, generator=generator).double()

    timesteps = timesteps or 1
    return rand(timesteps, samples, features), rand(timesteps, samples, units), 0.5


def same(one, other):
    for name in TENSORS:
        mine, theirs = getattr(one, name), getattr(other, name)
        if (mine is None) != (theirs is None):
            return False
        if mine is not None and (mine.shape != theirs.shape or not torch.allclose(mine, theirs, rtol=1e-12)):
            return False
    return (one.samples, one.batches) == (other.samples, other.batches)


@pytest.mark.parametrize("name", CRITERIA)
@settings(max_examples=25)
@given(
    units=st.sets(st.integers(0, 3), min_size=1),
    features=st.sets(st.integers(0, 4), min_size=1),
    seed=st.integers(0, 999),
)
def test_keeping_and_observing_commute_when_the_lost_features_are_silent(name, units, features, seed):
    criterion = CRITERIA[name]
    first, second = observed(criterion, seed=seed), observed(criterion, seed=seed)
    units, features = torch.tensor(sorted(units)), torch.tensor(sorted(features))
    pre, post, decay = batch(torch.Generator().manual_seed(seed + 1))
    silent = torch.ones(5, dtype=torch.bool)
    silent[features] = False
    pre[..., silent] = 0
    criterion.observe(first, pre, post, decay)
    first.keep(units, features)
    second.keep(units, features)
    criterion.observe(second, pre[..., features], post[..., units], decay)
    assert same(first, second)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("synapses", [True, False])
def test_keep_none_keeps_everything(name, synapses):
    statistics, other = (observed(CRITERIA[name], synapses=synapses, timesteps=None) for _ in range(2))
    statistics.keep(None, None)
    assert same(statistics, other)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize(("synapses", "timesteps"), [(True, 3), (False, None)])
def test_stored_statistics_go_on_as_if_nothing_happened(name, synapses, timesteps):
    criterion = CRITERIA[name]
    statistics = observed(criterion, synapses=synapses, timesteps=timesteps)
    file = io.BytesIO()
    torch.save(statistics.state_dict(), file)
    file.seek(0)
    restored = criterion.blank(4, 5, synapses=synapses, timesteps=timesteps, dtype=torch.float64)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert same(statistics, restored)
    more = batch(torch.Generator().manual_seed(7), timesteps=timesteps)
    criterion.observe(statistics, *more)
    criterion.observe(restored, *more)
    assert same(statistics, restored)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_state_is_a_copy(name):
    criterion = CRITERIA[name]
    statistics = observed(criterion)
    state = statistics.state_dict()
    other = criterion.blank(4, 5, synapses=True, timesteps=3, dtype=torch.float64)
    other.load_state_dict(state)
    before = {key: state[key].clone() for key in TENSORS}
    for kept in (statistics, other):
        criterion.observe(kept, *batch(torch.Generator().manual_seed(1)))
        criterion.begin_interval(kept)
    assert all(torch.equal(state[key], before[key]) for key in TENSORS)


@pytest.mark.parametrize("name", CRITERIA)
def test_a_state_of_another_projection_is_refused_and_changes_nothing(name):
    criterion = CRITERIA[name]
    statistics, untouched = observed(criterion), observed(criterion)
    with pytest.raises(ValueError, match="must hold"):
        statistics.load_state_dict(observed(criterion, synapses=False).state_dict())
    with pytest.raises(ValueError, match="shape"):
        statistics.load_state_dict(observed(criterion, units=3).state_dict())
    with pytest.raises(ValueError, match="shape"):
        statistics.load_state_dict(observed(criterion, features=6).state_dict())
    assert same(statistics, untouched)


def test_resetting_clears_the_sums_only():
    statistics = observed(CRITERIA["bcm"])
    threshold = statistics.threshold.clone()
    statistics.fade_sums(0.0)
    assert not any(getattr(statistics, name).any() for name in TENSORS[1:])
    assert torch.equal(statistics.threshold, threshold)
    assert (statistics.samples, statistics.batches) == (4, 2)


@pytest.mark.parametrize("name", CRITERIA)
def test_parts_that_observe_for_themselves_are_memories_of_their_own(name):
    criterion = CRITERIA[name]
    whole = criterion.blank(6, 1, synapses=False, timesteps=2)
    separate = [criterion.blank(3, 1, synapses=False, timesteps=2) for _ in range(2)]
    for _ in range(3):
        pre, post = torch.rand(2, 4, 2), torch.rand(2, 4, 6)
        parts = whole.parts(2)
        for group, part in enumerate(parts):
            for statistics in (part, separate[group]):
                received, units = pre[..., group : group + 1], post[..., 3 * group : 3 * group + 3]
                criterion.observe(statistics, received, units, 0.5)
        whole.rejoin(parts)
    assert whole.samples == separate[0].samples
    for part in ("threshold", "units", "activity", "timesteps"):
        joined = torch.cat([getattr(statistics, part) for statistics in separate], -1)
        assert torch.equal(getattr(whole, part), joined)
