"""Whatever the network: the compact one computes, and learns, what the silenced one does."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.layers import by_row
from dpap.anatomy.pytrees import Inputs, float_tensors, map_floats, run
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead
from dpap.surgery.equivalence import NothingFires
from dpap.surgery.slicing import keep_only
from dpap.surgery.trial import try_removal
from support.blocks import KINDS, Drawn, build, networks

NETWORKS_OF_A_KIND = 2


def _random_masks(wiring: Wiring, seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    masks = Masks.all_alive(wiring, synapses=True, timesteps=False)
    for alive in masks.units.values():
        alive &= torch.rand(alive.shape, generator=generator) >= 0.4
        alive[int(torch.randint(len(alive), (), generator=generator))] = True
    for alive in masks.synapses.values():
        alive &= torch.rand(alive.shape, generator=generator) >= 0.2
    return masks


def _gradients(model: nn.Module, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of the inputs; parameters keep theirs."""
    model.zero_grad()
    given = map_floats(inputs, lambda tensor: tensor.clone().requires_grad_())
    torch.manual_seed(0)
    outputs = list(float_tensors(run(model, given)))
    # no loss may explode: what is zero but for rounding has to stay so
    sum(torch.tanh(output / (1 + output.detach().abs().max())).sum() for output in outputs).backward()
    return outputs, [tensor.grad for tensor in float_tensors(given) if tensor.grad is not None]


def _same(one: list[Tensor], other: list[Tensor], tolerance: float) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.shape == second.shape
        scale = max(1.0, float(first.detach().abs().max()))
        assert float((first - second).detach().abs().max()) <= tolerance * scale


def _optimizer(kind: str, model: nn.Module) -> Optimizer:
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return (
        SGD(learning, 1e-3, momentum=0.9)
        if kind == "sgd"
        else AdamW(learning, 1e-3, eps=1e-3, weight_decay=0.1)
    )


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0


@pytest.mark.parametrize("kind", [*KINDS, "spiking"])
def test_compact_is_silent(kind: str) -> None:
    @given(networks(kind), st.integers(0, 2**16), st.sampled_from(["sgd", "adamw"]))
    @settings(max_examples=NETWORKS_OF_A_KIND, suppress_health_check=list(HealthCheck))
    def check(drawn: Drawn, seed: int, optimizer: str) -> None:
        _check_twins(drawn, seed, optimizer)

    check()


def _check_twins(drawn: Drawn, seed: int, optimizer: str) -> None:
    model, inputs = drawn.model, drawn.inputs
    _without_dropout(model)
    double = next(model.parameters()).dtype == torch.float64
    tolerance = 1e-9 if double else 2e-4
    wiring = find_wiring(model, inputs)
    try_removal(model, wiring, inputs)
    for layer in wiring.layers.values():
        assert layer.prunability == "prunable" or layer.reason
    masks = _random_masks(wiring, seed)
    small, small_wiring = copy.deepcopy((model, wiring))
    optimizers = [_optimizer(optimizer, model), _optimizer(optimizer, small)]
    _gradients(model, inputs)
    _gradients(small, inputs)
    for one in optimizers:
        one.step()
    silences = [
        Silence(model, wiring, optimizers[:1]),
        Silence(small, small_wiring, optimizers[1:]),
    ]
    for silence in silences:
        silence.impose(masks)
    try:
        kept, _ = remove_dead(small, small_wiring, masks, optimizers[1:], inputs)
    except NothingFires:
        assume(False)
    small_wiring.keep(kept.units, kept.features)
    silences[1].impose(_kept(masks, kept.units, kept.features))
    fresh = map_floats(inputs, lambda tensor: torch.rand_like(tensor) * 3)
    for mode in (False, True):
        model.train(mode), small.train(mode)
        if not double and any(hasattr(module, "threshold") for module in model.modules()):
            continue  # in single precision the order of a sum may flip a spike
        outputs, gradients = _gradients(model, fresh)
        small_outputs, small_gradients = _gradients(small, fresh)
        _same(outputs, small_outputs, tolerance)
        _same(gradients, small_gradients, tolerance * 10)
    if double:
        for one in optimizers:
            one.step()
        model.eval(), small.eval()
        _same(_gradients(model, fresh)[0], _gradients(small, fresh)[0], 1e-7)
        keep_only(model, wiring, kept, optimizers[:1])
        _same(list(model.parameters()), list(small.parameters()), 1e-7)


def _kept(masks: Masks, units: dict[str, Tensor], features: dict[object, Tensor]) -> Masks:
    remaining = masks.copy()
    for name in remaining.units:
        remaining.keep(name, units.get(name), features.get(name))
    return remaining


@pytest.mark.parametrize("kind", [*KINDS, "spiking"])
@pytest.mark.parametrize("seed", range(2))
def test_silence_is_a_mask_on_what_units_emit(kind: str, seed: int) -> None:
    drawn = build([kind], seed, torch.float64)
    model, inputs = drawn.model.eval(), drawn.inputs
    wiring = find_wiring(model, inputs)
    masks = _random_masks(wiring, seed)
    masks.synapses.clear()
    masked = copy.deepcopy(model)
    useful = masks.useful(wiring)
    for name, layer in wiring.layers.items():
        rows = by_row(useful[name], layer.module)
        _mask(masked.get_submodule(name), rows, layer.kind.activity_axis)
    for name, attachment in wiring.attachments.items():
        site = next(iter(attachment.feeds))
        axis = wiring.layers[site].kind.activity_axis if site in wiring.layers else -3
        _mask(masked.get_submodule(name), masks.features(attachment), axis)
    Silence(model, wiring, ()).impose(masks)
    with torch.no_grad():
        outputs = [list(float_tensors(run(network, inputs))) for network in (model, masked)]
    _same(*outputs, 1e-9)


def _mask(module: nn.Module, alive: Tensor, axis: int) -> None:
    def hook(module: nn.Module, args: object, output: Tensor) -> Tensor:
        shape = [1] * output.ndim
        shape[axis] = -1
        return output * alive.view(shape)

    module.register_forward_hook(hook)


EXPECTED: dict[str, dict[str, set[str]]] = {
    "identity shortcut": {"inner.0": {"prunable"}},
    "padded shortcut": {"inner.0": {"prunable"}},
    "dense": {"convs.0": {"prunable"}, "convs.1": {"prunable"}},
    "u-net": {"down": {"prunable"}, "up": {"prunable"}},
    "grouped": {"grouped.0": {"prunable"}, "reduce.0": {"prunable"}},
    "depthwise": {"expand.0": {"prunable"}, "project.0": {"prunable"}},
    "squeeze and excitation": {"conv.0": {"prunable"}, "squeeze": {"prunable"}, "excite": {"follows"}},
    "shared": {"twice": {"prunable"}},
    "split": {"conv": {"prunable"}},
    "other dimensions": {
        "line": {"prunable"},
        "up": {"prunable"},
        "space": {"prunable"},
        "back": {"prunable"},
    },
    "transformer": {"hidden": {"prunable"}, "back": {"whole", "silenced"}, "embed": {"whole", "silenced"}},
    "active at zero": {"conv": {"whole"}},
    "owned": {"conv": {"whole", "silenced"}},
    "product": {"one": {"prunable"}},
    "recurrent": {"conv": {"whole", "silenced"}},
}


@pytest.mark.parametrize("kind", EXPECTED)
@pytest.mark.parametrize("seed", range(3))
def test_layers_have_the_expected_prunability(kind: str, seed: int) -> None:
    drawn = build([kind], seed, torch.float64)
    drawn.model.side = None
    wiring = find_wiring(drawn.model, drawn.inputs)
    try_removal(drawn.model, wiring, drawn.inputs)
    for name, expected in EXPECTED[kind].items():
        layer = wiring.layers[f"blocks.0.{name}"]
        assert layer.prunability in expected, layer.reason
