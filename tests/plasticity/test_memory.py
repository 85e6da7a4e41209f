import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpap.plasticity import RULES

TENSORS = ("threshold", "spines", "activity", "synapses", "timesteps")


def observed(rules, batches=2, units=4, features=5, synapses=True, timesteps=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    memory = rules.blank(units, features, synapses=synapses, timesteps=timesteps, dtype=torch.float64)
    for _ in range(batches):
        rules.observe(memory, *batch(generator, units, features, timesteps))
    return memory


def batch(generator, units=4, features=5, timesteps=3, samples=2):
    def rand(*shape):
        return torch.rand(shape, generator=generator).double()

    if timesteps is None:
        return rand(samples, features), rand(samples, units)
    return (
        rand(samples, features),
        rand(samples, units),
        rand(timesteps, samples),
        rand(timesteps, samples, units),
    )


def same(one, other):
    for name in TENSORS:
        mine, theirs = getattr(one, name), getattr(other, name)
        if (mine is None) != (theirs is None):
            return False
        if mine is not None and (mine.shape != theirs.shape or not torch.allclose(mine, theirs, rtol=1e-12)):
            return False
    return (one.samples, one.batches) == (other.samples, other.batches)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=25)
@given(
    units=st.sets(st.integers(0, 3), min_size=1),
    features=st.sets(st.integers(0, 4), min_size=1),
    seed=st.integers(0, 999),
)
def test_keeping_and_observing_commute_when_the_lost_features_are_silent(name, units, features, seed):
    rules = RULES[name]
    first, second = observed(rules, seed=seed), observed(rules, seed=seed)
    units, features = torch.tensor(sorted(units)), torch.tensor(sorted(features))
    pre, post, pre_total, post_over_time = batch(torch.Generator().manual_seed(seed + 1))
    silent = torch.ones(5, dtype=torch.bool)
    silent[features] = False
    pre[:, silent] = 0
    rules.observe(first, pre, post, pre_total, post_over_time)
    first.keep(units, features)
    second.keep(units, features)
    rules.observe(second, pre[:, features], post[:, units], pre_total, post_over_time[..., units])
    assert same(first, second)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("synapses", [True, False])
def test_keep_none_keeps_everything(name, synapses):
    memory, other = (observed(RULES[name], synapses=synapses, timesteps=None) for _ in range(2))
    memory.keep(None, None)
    assert same(memory, other)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("synapses", "timesteps"), [(True, 3), (False, None)])
def test_a_stored_memory_goes_on_as_if_nothing_happened(name, synapses, timesteps):
    rules = RULES[name]
    memory = observed(rules, synapses=synapses, timesteps=timesteps)
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    restored = rules.blank(4, 5, synapses=synapses, timesteps=timesteps, dtype=torch.float64)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert same(memory, restored)
    more = batch(torch.Generator().manual_seed(7), timesteps=timesteps)
    rules.observe(memory, *more)
    rules.observe(restored, *more)
    assert same(memory, restored)


@pytest.mark.parametrize("name", RULES)
def test_a_state_is_a_copy(name):
    rules = RULES[name]
    memory = observed(rules)
    state = memory.state_dict()
    other = rules.blank(4, 5, synapses=True, timesteps=3, dtype=torch.float64)
    other.load_state_dict(state)
    before = {key: state[key].clone() for key in TENSORS}
    for kept in (memory, other):
        rules.observe(kept, *batch(torch.Generator().manual_seed(1)))
        rules.begin_epoch(kept)
    assert all(torch.equal(state[key], before[key]) for key in TENSORS)


@pytest.mark.parametrize("name", RULES)
def test_a_state_of_another_projection_is_refused_and_changes_nothing(name):
    rules = RULES[name]
    memory, untouched = observed(rules), observed(rules)
    with pytest.raises(ValueError, match="must hold"):
        memory.load_state_dict(observed(rules, synapses=False).state_dict())
    with pytest.raises(ValueError, match="shape"):
        memory.load_state_dict(observed(rules, units=3).state_dict())
    with pytest.raises(ValueError, match="shape"):
        memory.load_state_dict(observed(rules, features=6).state_dict())
    assert same(memory, untouched)


def test_forgetting_clears_the_sums_only():
    memory = observed(RULES["paper"])
    threshold = memory.threshold.clone()
    memory.forget()
    assert not any(getattr(memory, name).any() for name in TENSORS[1:])
    assert torch.equal(memory.threshold, threshold)
    assert (memory.samples, memory.batches) == (4, 2)


@pytest.mark.parametrize("rules", ["paper", "released"])
def test_parts_that_observe_for_themselves_are_memories_of_their_own(rules: str) -> None:
    whole = RULES[rules].blank(6, 1, synapses=False, timesteps=2)
    separate = [RULES[rules].blank(3, 1, synapses=False, timesteps=2) for _ in range(2)]
    for _ in range(3):
        pre, post = torch.rand(4, 2), torch.rand(4, 6)
        over_time = torch.rand(2, 4), torch.rand(2, 4, 6)
        parts = whole.parts(2)
        for group, part in enumerate(parts):
            units = slice(3 * group, 3 * group + 3)
            for memory in (part, separate[group]):
                RULES[rules].observe(
                    memory, pre[:, group : group + 1], post[:, units], over_time[0], over_time[1][:, :, units]
                )
        whole.rejoin(parts)
    assert whole.samples == separate[0].samples
    for name in ("threshold", "spines", "activity", "timesteps"):
        joined = torch.cat([getattr(memory, name) for memory in separate], -1)
        assert torch.equal(getattr(whole, name), joined)
