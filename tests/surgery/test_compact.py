"""The compact network is the silenced one, only smaller; or nothing happens at all."""

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from dpap.anatomy import Wiring, find_wiring
from dpap.surgery import CompactionError, CompactReport, Masks, Silence
from dpap.surgery.compact import remove_dead
from dpap.surgery.equivalence import in_double
from dpap.surgery.slicing import Kept
from support.networks import Drawn, Residual, chains


def _random_masks(wiring: Wiring, seed: int, share: float = 0.5) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    masks = Masks.all_alive(wiring, synapses=True, timesteps=False)
    for alive in masks.units.values():
        alive &= torch.rand(alive.shape, generator=generator) >= share
        alive[int(torch.randint(len(alive), (), generator=generator))] = True
    for alive in masks.synapses.values():
        alive &= torch.rand(alive.shape, generator=generator) >= 0.3
    return masks


def _silenced(
    model: nn.Module, example: Tensor, seed: int, *optimizers: Optimizer
) -> tuple[Wiring, Masks, Silence]:
    wiring = find_wiring(model, (example,))
    masks = _random_masks(wiring, seed)
    silence = Silence(model, wiring, optimizers)
    silence.impose(masks)
    return wiring, masks, silence


def _removed(
    model: nn.Module, wiring: Wiring, masks: Masks, optimizers: list[Optimizer], example: Tensor
) -> tuple[Kept, CompactReport]:
    """The removal, of networks that are not silent altogether."""
    try:
        return remove_dead(model, wiring, masks, optimizers, (example,))
    except CompactionError as error:
        assume("no neuron fires" not in str(error))
        raise


@given(chains(), st.integers(0, 2**16))
@settings(max_examples=20)
def test_outputs_and_gradients_are_those_of_the_silenced_network(drawn: Drawn, seed: int) -> None:
    model, example = drawn
    wiring, masks, _ = _silenced(model, example, seed)
    silent = copy.deepcopy(model)
    kept, report = _removed(model, wiring, masks, [], example)
    assert report.parameters_after == sum(p.numel() for p in model.parameters()) <= report.parameters_before
    assert kept.everything == (report.parameters_after == report.parameters_before)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        outputs, gradients = [], []
        for network in (silent, model):
            network.to(dtype).eval()
            inputs = example.to(dtype).requires_grad_()
            output = network(inputs)
            output.square().sum().backward()
            outputs.append(output.detach())
            gradients.append(inputs.grad)
        if dtype == torch.float64 or not any(n.spikes for n in wiring.neurons.values()):
            assert torch.allclose(
                outputs[0], outputs[1], rtol=0, atol=tolerance * float(outputs[0].abs().max() + 1)
            )
            scale = float(gradients[0].abs().max() + 1)
            assert torch.allclose(gradients[0], gradients[1], rtol=0, atol=10 * tolerance * scale)


def _sgd(parameters: Iterable[Tensor]) -> Optimizer:
    return SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-2)


def _adamw(parameters: Iterable[Tensor]) -> Optimizer:
    # a bias before a norm has no gradient but rounding, which AdamW would scale up with the usual eps
    return AdamW(parameters, 0.01, weight_decay=1e-2, eps=1e-4)


@pytest.mark.parametrize("make", [_sgd, _adamw])
@given(drawn=chains(), seed=st.integers(0, 2**16))
@settings(max_examples=8)
def test_training_goes_on_as_if_nothing_had_been_removed(
    make: Callable[..., Optimizer], drawn: Drawn, seed: int
) -> None:
    model, example = drawn
    model.double().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    example = example.double()
    optimizer = make(model.parameters())

    def train(network: nn.Module, stepper: Optimizer) -> None:
        for _ in range(2):
            stepper.zero_grad()
            network(example).square().sum().backward()
            stepper.step()

    train(model, optimizer)
    wiring, masks, silence = _silenced(model, example, seed, optimizer)
    twin = copy.deepcopy(model)
    twin_optimizer = make(twin.parameters())
    twin_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    Silence(twin, find_wiring(twin, (example,)), [twin_optimizer]).impose(masks)
    kept, _ = _removed(model, wiring, masks, [optimizer], example)
    silence.remove()
    compact_wiring, compact_masks = find_wiring(model, (example,)), masks.copy()
    for name, units in kept.units.items():
        compact_masks.units[name] = masks.units[name][units]
    for name in compact_masks.synapses:
        synapses = masks.synapses[name]
        synapses = synapses[kept.units[name]] if name in kept.units else synapses
        compact_masks.synapses[name] = synapses[:, kept.features[name]] if name in kept.features else synapses
    Silence(model, compact_wiring, [optimizer]).impose(compact_masks)
    train(twin, twin_optimizer)
    train(model, optimizer)
    assert torch.allclose(model.eval()(example), twin.eval()(example), rtol=1e-9, atol=1e-9)
    for name, layer in wiring.layers.items():
        small = model.get_submodule(name).weight
        large = twin.get_submodule(name).weight
        if name in kept.units:
            large = large.index_select(layer.kind.unit_axis, kept.units[name])
        if name in kept.features:
            large = large.index_select(layer.kind.feature_axis, kept.features[name])
        assert torch.allclose(small, large, rtol=1e-9, atol=1e-9)


def test_coupled_units_leave_only_together() -> None:
    model, example = Residual(), torch.rand(2, 2, 4, 4)
    wiring = find_wiring(model, (example,))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["stem"][:4] = False
    masks.units["outer"][2:] = False
    Silence(model, wiring, []).impose(masks)
    kept, _ = remove_dead(model, wiring, masks, [], (example,))
    assert kept.units["stem"].tolist() == kept.units["outer"].tolist() == [0, 1, 4, 5]
    assert model.norm.num_features == 4 and model.inner.in_channels == 4
    assert model.head.in_features == 4 + 4


def test_the_users_references_stay_valid() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    example = torch.rand(5, 4)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    optimizer = AdamW(model.parameters())
    model(example).sum().backward()
    optimizer.step()
    wiring = find_wiring(model, (example,))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["0"][1:4] = False
    Silence(model, wiring, [optimizer]).impose(masks)
    remove_dead(model, wiring, masks, [optimizer], (example,))
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    assert parameters["0.weight"].shape == (3, 4) == parameters["0.weight"].grad.shape
    assert optimizer.state[parameters["0.weight"]]["exp_avg"].shape == (3, 4)
    assert buffers["1.running_var"].shape == (3,)
    assert model[0].out_features == 3 and model[3].in_features == 3 and model[1].num_features == 3


class Fixed(nn.Module):
    """A network with code that fixes the number of channels."""

    def __init__(self, wrong: bool) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)
        self.wrong = wrong

    def forward(self, values: Tensor) -> Tensor:
        hidden = self.act(self.fc1(values))
        if self.wrong:
            return self.fc2(hidden) * hidden.shape[1]
        return self.fc2(hidden.view(-1, 6))


@pytest.mark.parametrize(
    ("wrong", "message"), [(False, "does not run without"), (True, "compute something else")]
)
def test_a_removal_that_would_change_the_network_is_refused_and_undone(wrong: bool, message: str) -> None:
    model, example = Fixed(wrong), torch.rand(5, 4)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    model(example).sum().backward()
    optimizer.step()
    wiring = find_wiring(model, (example,))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["fc1"][2:4] = False
    Silence(model, wiring, [optimizer]).impose(masks)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    with pytest.raises(CompactionError, match=message):
        remove_dead(model, wiring, masks, [optimizer], (example,))
    after = (model.state_dict(), optimizer.state_dict())
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    for index, state in before[1]["state"].items():
        assert torch.equal(state["momentum_buffer"], after[1]["state"][index]["momentum_buffer"])
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    assert model.fc1.out_features == 6 and model.fc2.in_features == 6 and model.training


def test_an_input_on_which_nothing_fires_is_no_check() -> None:
    model, example = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.zeros(5, 4)
    nn.init.zeros_(model[0].bias)
    wiring = find_wiring(model, (example,))
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["0"][0] = False
    Silence(model, wiring, []).impose(masks)
    with pytest.raises(CompactionError, match="no neuron fires"):
        remove_dead(model, wiring, masks, [], (example,))
    assert model[0].out_features == 6


def test_double_precision_is_temporary() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model(torch.rand(4, 3)).sum().backward()
    before = {name: (value, value.data_ptr()) for name, value in model.state_dict(keep_vars=True).items()}
    gradient = model[0].weight.grad
    with in_double(model):
        assert model[0].weight.dtype == torch.float64
    after = model.state_dict(keep_vars=True)
    assert all(after[name] is value and value.data_ptr() == where for name, (value, where) in before.items())
    assert model[0].weight.grad is gradient
