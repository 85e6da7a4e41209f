"""Neurons on a GPU against a loop over timesteps on the CPU in double precision."""

import pytest
import torch
from torch import Tensor

from dpap.spiking import IF, LIF, PLIF, ArcTan, Sigmoid, SpikingNeuron, Surrogate, Triangle, kernel
from dpap.spiking.rule import Rule
from spiking.backends import plain_loop

KINDS = [IF, LIF, PLIF]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 3e-3}


def loop(neuron: SpikingNeuron, current: Tensor) -> Tensor:
    rule = Rule(neuron.threshold, neuron.reset == "hard", neuron.detach_reset, neuron.surrogate)
    sharpness = None if neuron.log_sharpness is None else neuron.log_sharpness.exp()
    return plain_loop(current, neuron.rate(), rule, sharpness)


def gradients(function, neuron: SpikingNeuron, current: Tensor, weight: Tensor) -> list[Tensor]:
    inputs = [current, *neuron.parameters()]
    spikes = function(current)
    return [spikes.detach(), *torch.autograd.grad((spikes * weight).sum(), inputs)]


def compare(
    neuron: SpikingNeuron, current: Tensor, weight: Tensor, dtype: torch.dtype, constant=False
) -> None:
    """Equal spikes; gradients within the precision's tolerance of the largest."""
    steps = len(weight)

    def expanded(x: Tensor) -> Tensor:
        return x.expand(steps, *x.shape[1:]) if constant else x

    current = current.to(dtype)
    weight = weight.to(dtype)
    neuron = neuron.double()
    exact = current.double().requires_grad_()
    expected = gradients(lambda x: loop(neuron, expanded(x)), neuron, exact, weight.double())
    neuron = neuron.to("cuda", torch.float64 if dtype == torch.float64 else torch.float32)
    moved = current.cuda().requires_grad_()
    result = gradients(lambda x: neuron(expanded(x)), neuron, moved, weight.cuda())
    assert torch.equal(result[0].cpu().double(), expected[0])
    for r, e in zip(result[1:], expected[1:], strict=True):
        assert r.isfinite().all()
        largest = max(e.abs().max().item(), 1.0)
        assert (r.cpu().double() - e).abs().max() <= TOLERANCES[dtype] * largest


def drawn(steps: int, *shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # all precisions hold these; thresholds of 1.03 are then not met exactly
    current = torch.randint(-16, 33, (steps, *shape), generator=generator) / 16
    return current, torch.randint(-8, 9, (steps, *shape), generator=generator) / 8


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_equals_the_loop_in_every_precision(kind, reset, dtype) -> None:
    current, weight = drawn(6, 3, 257)
    neuron = kind(reset=reset, threshold=1.03)
    compare(neuron, current, weight, dtype)


@pytest.mark.parametrize("surrogate", [ArcTan(0.7), Sigmoid(), Triangle(2.5)])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_equals_the_loop_for_every_rule(surrogate: Surrogate, reset, detach_reset, learned) -> None:
    current, weight = drawn(5, 2, 300, seed=1)
    for kind in KINDS:
        neuron = kind(
            reset=reset,
            threshold=1.03,
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn_surrogate=learned,
        )
        if learned:
            torch.nn.init.constant_(neuron.log_sharpness, 0.3)
        compare(neuron, current, weight, torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_constant_current_expanded_over_time(kind, dtype) -> None:
    current, weight = drawn(4, 3, 65)
    compare(kind(threshold=1.03), current[:1], weight, dtype, constant=True)


def test_the_kernels_serve_every_precision_but_double() -> None:
    for dtype in TOLERANCES:
        assert kernel.serves(torch.zeros(2, 1, device="cuda", dtype=dtype), ArcTan()) == (
            dtype != torch.float64
        )


def test_channels_last_stays() -> None:
    current = (
        torch.randn(8, 5, 6, 6, device="cuda").to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    )
    spikes = LIF()(current)
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(spikes, LIF()(current.contiguous()))


def test_more_units_than_fit_in_32_bits_of_bytes() -> None:
    current = torch.full((2, 1, 2**30 + 3), 1.5, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        spikes = LIF()(current)
    assert spikes[1, 0, -3:].tolist() == [1, 1, 1] and spikes[0].sum(dtype=torch.float32) == 0
