import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpap.plasticity import RULES, bcm, normalise, spines, timestep_importance

PAPER, RELEASED = RULES["paper"], RULES["released"]


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).double()


def blank(rules, units=3, features=4, **kinds):
    return rules.blank(units, features, **{"synapses": True, "dtype": torch.float64, **kinds})


@settings(max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 999))
def test_paper_sums_an_epoch_with_the_threshold_before_its_update(sizes, seed):
    memory = blank(PAPER)
    threshold, seen = torch.zeros(3).double(), []
    synapses, neurons = torch.zeros(3, 4).double(), torch.zeros(3).double()
    for number, size in enumerate(sizes):
        pre, post = rand(size, 4, seed=seed + number), rand(size, 3, seed=seed + number + 100)
        synapses += bcm(pre, post, threshold)
        neurons += spines(pre.sum(1), post, threshold)
        seen.append(post)
        threshold = torch.cat(seen).mean(0)
        PAPER.observe(memory, pre, post)
    close = {"rtol": 1e-11, "atol": 1e-13}
    assert torch.allclose(PAPER.synapse_importance(memory), synapses, **close)
    assert torch.allclose(PAPER.unit_importance(memory), neurons, **close)
    assert torch.allclose(memory.threshold, threshold, **close)
    assert torch.allclose(memory.activity, torch.cat(seen).sum(0), **close)
    assert (memory.samples, memory.batches) == (sum(sizes), len(sizes))


def test_an_epoch_of_the_paper_starts_from_nothing_but_the_threshold():
    memory = blank(PAPER)
    PAPER.observe(memory, rand(2, 4), rand(2, 3))
    threshold = memory.threshold.clone()
    PAPER.begin_epoch(memory)
    assert torch.equal(memory.threshold, threshold)
    PAPER.observe(memory, rand(2, 4, seed=1), rand(2, 3, seed=2))
    alone = bcm(rand(2, 4, seed=1), rand(2, 3, seed=2), threshold)
    assert torch.allclose(PAPER.synapse_importance(memory), alone, rtol=1e-12)


def test_released_never_forgets():
    memory = blank(RELEASED)
    RELEASED.observe(memory, rand(2, 4), rand(2, 3))
    before = memory.state_dict()
    RELEASED.begin_epoch(memory)
    assert all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(before[name]))
        for name, value in memory.state_dict().items()
    )


def test_released_batches_of_changing_size():
    memory = blank(RELEASED)
    first, short, long = rand(2, 3), rand(1, 3, seed=1), rand(3, 3, seed=2)
    RELEASED.observe(memory, rand(2, 4), first)
    RELEASED.observe(memory, rand(1, 4), short)
    expected = torch.stack([(first[0] + short[0]) / 2, first[1]])
    assert torch.allclose(memory.threshold, expected, rtol=1e-12)
    RELEASED.observe(memory, rand(3, 4), long)
    expected = (torch.cat([expected, expected.mean(0, keepdim=True)]) * 2 + long) / 3
    assert torch.allclose(memory.threshold, expected, rtol=1e-12)


def test_released_importance_does_not_need_the_matrix():
    whole, rows = blank(RELEASED), blank(RELEASED, synapses=False)
    for seed in range(3):
        for memory in (whole, rows):
            RELEASED.observe(memory, rand(2, 4, seed=seed), rand(2, 3, seed=seed + 9))
    everyone = torch.ones(3, dtype=torch.bool)
    expected = normalise(whole.synapses.sum(1), everyone) * normalise(whole.activity, everyone)
    assert torch.allclose(RELEASED.unit_importance(rows), expected, rtol=1e-10)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_timesteps_are_summed(rules):
    memory = blank(rules, timesteps=2)
    for seed in range(2):
        rules.observe(memory, rand(2, 4), rand(2, 3), rand(2, 2, seed=seed), rand(2, 2, 3, seed=seed))
    expected = sum(timestep_importance(rand(2, 2, seed=seed), rand(2, 2, 3, seed=seed)) for seed in range(2))
    assert torch.allclose(rules.timestep_importance(memory), expected, rtol=1e-12)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_what_is_not_remembered_cannot_be_asked(rules):
    memory = blank(rules, synapses=False)
    with pytest.raises(ValueError, match="synapses=True"):
        rules.synapse_importance(memory)
    with pytest.raises(ValueError, match="timesteps=T"):
        rules.timestep_importance(memory)
    with pytest.raises(ValueError, match="post_over_time"):
        rules.observe(blank(rules, timesteps=2), rand(2, 4), rand(2, 3))


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_observing_needs_neither_gradients_nor_full_precision(rules):
    memory = rules.blank(1, 2, synapses=True)
    pre = torch.full((1, 2), 129.0, dtype=torch.bfloat16, requires_grad=True)
    post = torch.full((1, 1), 129.0, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rules.observe(memory, pre, post)
    assert memory.synapses.tolist() == [[129.0**3] * 2]
    assert not memory.synapses.requires_grad
    assert not memory.threshold.requires_grad
    assert memory.threshold.dtype == torch.float32


def test_how_the_rules_differ():
    counts = torch.ones(4, 1, 1)
    assert PAPER.trace(counts, 0.5).item() == 1.875
    assert RELEASED.trace(counts, 0.5).item() == 1.875 / 4
    importance, alive = torch.tensor([0.0, 1.0, 2.0, 9.0]), torch.tensor([False, True, True, True])
    assert PAPER.normalise(importance, alive).tolist() == [0, 0, 0.125, 1]
    assert RELEASED.normalise(importance, alive).tolist() == pytest.approx([0, 1 / 3.75, 2 / 3.75, 1])
    assert (PAPER.strict, RELEASED.strict) == (False, True)
    assert PAPER.decay(6, 12.0) == math.exp(-0.5)
    assert RELEASED.decay(6, 12.0) == 1
    assert {name: rules.name for name, rules in RULES.items()} == {"paper": "paper", "released": "released"}
