"""Contributions to the loss, against what a gate on the activity itself says."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from dpap.anatomy import find_wiring
from dpap.anatomy.observing.contributions import ContributionRecorder
from dpap.anatomy.pytrees import float_tensors
from dpap.models import NetworkConfig, build_network
from dpap.spiking import LIF
from support.blocks import KINDS, build


def _loss(model: nn.Module, inputs: object) -> Tensor:
    output = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    tensors = list(float_tensors(output))
    return sum((one.square().sum() + one.sum() for one in tensors), torch.zeros(()))


def _recorder(model, wiring, optimizers=(), **kinds) -> tuple[ContributionRecorder, list]:
    found: list = []
    units = [name for name, layer in wiring.layers.items() if layer.can_die]
    recorder = ContributionRecorder(
        model, wiring, units, kinds.get("synapses", ()), kinds.get("timesteps", ()),
        kinds.get("every", 1), found.append, optimizers,
    )  # fmt: skip
    return recorder, found


def _gated(model: nn.Module, wiring, inputs: object, name: str) -> Tensor:
    """The derivative of the loss by a factor on everything that the units of a layer send to each of its readers."""
    gate = torch.ones(wiring.layers[name].units, dtype=torch.float64, requires_grad=True)
    handles = []
    for reader in wiring.layers.values():
        fed = reader.feeds.get(name)
        if fed is None:
            continue

        def multiply(module, args, fed=fed, axis=reader.kind.activity_axis):
            factors = torch.where(fed >= 0, gate[fed.clamp(min=0)], 1.0)
            shape = [1] * args[0].ndim
            shape[axis] = -1
            return (args[0] * factors.view(shape), *args[1:])

        if reader.called is not None:
            handles.append(reader.called.register_forward_pre_hook(multiply))
    _loss(model, inputs).backward()
    for handle in handles:
        handle.remove()
    return gate.grad if gate.grad is not None else torch.zeros_like(gate)


@pytest.mark.parametrize("kind", [*sorted(KINDS), "spiking"])
def test_a_unit_contributes_what_a_gate_on_its_activity_says(kind: str) -> None:
    drawn = build([kind], 0, torch.float64)
    model, inputs = drawn.model.train(), drawn.inputs
    wiring = find_wiring(model, inputs)
    # forwards in training draw dropout masks and move statistics: both networks start alike
    twin = copy.deepcopy((model, wiring))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recorder, found = _recorder(model, wiring, [optimizer])
    torch.manual_seed(0)
    _loss(model, inputs).backward()
    optimizer.step()
    assert len(found) == 1
    compared = 0
    for name, contribution in found[0].items():
        readers = [reader for reader in wiring.layers.values() if name in reader.feeds]
        if not readers or any(reader.fixed or bool((reader.feeds[name] == -2).any()) for reader in readers):
            continue
        other, its_wiring = copy.deepcopy(twin)
        torch.manual_seed(0)
        expected = _gated(other, its_wiring, inputs, name)
        torch.testing.assert_close(contribution.units, expected, rtol=1e-8, atol=1e-9)
        compared += 1
    assert compared
    recorder.remove()


def _small() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    ).double()
    return model, torch.randn(6, 2, 4, 4).double(), torch.randint(3, (6,))


def _backward(model: nn.Module, x: Tensor, y: Tensor, factor: float = 1.0) -> None:
    (factor * nn.functional.cross_entropy(model(x), y)).backward()


def _equal(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name].units, other[name].units)
        if one[name].synapses is not None:
            torch.testing.assert_close(one[name].synapses, other[name].synapses)


def _reference() -> dict:
    model, x, y = _small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, found = _recorder(model, find_wiring(model, (x,)), [optimizer], synapses=["4"])
    _backward(model, x, y)
    optimizer.step()
    return found[0]


def test_a_synapse_contributes_its_weight_times_its_gradient() -> None:
    model, x, y = _small()
    _backward(model, x, y)
    torch.testing.assert_close(_reference()["4"].synapses, (model[4].weight * model[4].weight.grad).detach())
    assert _reference()["0"].synapses is None


def test_silencing_a_small_unit_changes_the_loss_by_its_contribution() -> None:
    """To first order: of a unit whose activity is a thousandth of a real one."""
    model, x, y = _small()
    with torch.no_grad():
        model[6].weight[:, 2] *= 1e-4
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    _, found = _recorder(model, find_wiring(model, (x,)), [optimizer])
    _backward(model, x, y)
    optimizer.step()
    before = nn.functional.cross_entropy(model(x), y)
    with torch.no_grad():
        model[6].weight[:, 2] = 0
    fell = before - nn.functional.cross_entropy(model(x), y)
    assert fell.item() == pytest.approx(found[0]["4"].units[2].item(), rel=1e-3)


def test_accumulated_gradients_count_as_one_step() -> None:
    model, x, y = _small()
    model.eval()  # statistics of the batch would differ from those of its halves
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, found = _recorder(model, find_wiring(model, (x,)), [optimizer])
    for half in (slice(0, 3), slice(3, 6)):
        _backward(model, x[half], y[half], 0.5)
    optimizer.step()
    whole, x, y = _small()
    whole.eval()
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    _, expected = _recorder(whole, find_wiring(whole, (x,)), [optimizer])
    _backward(whole, x, y)
    optimizer.step()
    assert len(found) == 1
    _equal(found[0], expected[0])


def test_several_optimizers_make_one_step() -> None:
    model, x, y = _small()
    parts = [
        torch.optim.SGD(model[:3].parameters(), lr=0.1),
        torch.optim.AdamW(model[3:5].parameters(), lr=0.1),
        torch.optim.SGD(model[5:].parameters(), lr=0.1),
    ]
    _, found = _recorder(model, find_wiring(model, (x,)), parts, synapses=["4"])
    _backward(model, x, y)
    for optimizer in parts:
        optimizer.step()
    assert len(found) == 1
    _equal(found[0], _reference())


def test_without_an_optimizer_every_backward_pass_counts() -> None:
    model, x, y = _small()
    recorder, found = _recorder(model, find_wiring(model, (x,)), synapses=["4"])
    _backward(model, x, y)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    model.zero_grad()
    model(x)
    recorder.end_step()
    assert len(found) == 1
    _equal(found[0], _reference())


def test_a_closure_computes_the_gradients_within_the_step() -> None:
    model, x, y = _small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    _, found = _recorder(model, find_wiring(model, (x,)), [optimizer], synapses=["4"])

    def closure() -> float:
        optimizer.zero_grad()
        _backward(model, x, y)
        return 0.0

    optimizer.step(closure)  # the weights that it leaves are not those that the gradients are of
    _equal(found[0], _reference())
    _backward(model, x, y)
    assert len(found) == 1


def test_gradients_are_taken_unscaled_and_a_skipped_step_counts_nothing() -> None:
    model, x, y = _small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    _, found = _recorder(model, find_wiring(model, (x,)), [optimizer], synapses=["4"])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
    scaler.step(optimizer)
    scaler.update()
    _equal(found[0], _reference())
    optimizer.zero_grad()
    scaler.scale(nn.functional.cross_entropy(model(x), y)).backward()
    model[6].weight.grad[0, 0] = torch.inf
    scaler.step(optimizer)
    assert len(found) == 1


def test_a_fused_optimizer_that_unscales_by_itself_is_unscaled_too() -> None:
    model, x, y = _small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    _, found = _recorder(model, find_wiring(model, (x,)), [optimizer], synapses=["4"])
    _backward(model, x, y, 1024.0)
    # as torch.amp.GradScaler does with fused optimizers
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1024.0), torch.tensor(0.0)
    optimizer.step()
    _equal(found[0], _reference())
    model[6].weight.grad[:] = torch.inf
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.step()
    # what is infinite is left out where contributions are remembered
    assert not all(contribution.units.isfinite().all() for contribution in found[1].values())


def test_one_of_two_steps_is_taken_from_the_third_on() -> None:
    model, x, y = _small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder, found = _recorder(model, find_wiring(model, (x,)), [optimizer], every=2)
    for _ in range(6):
        _backward(model, x, y)
        optimizer.step()
    assert len(found) == 4
    recorder.begin_epoch()
    optimizer.step()
    assert len(found) == 5
    recorder.remove()
    optimizer.step()
    optimizer.step()
    assert len(found) == 5


@pytest.mark.parametrize("how", ["frozen", "parametrized"])
def test_where_readers_have_no_gradients_it_is_taken_at_the_normalisation(how: str) -> None:
    model, x, y = _small()
    if how == "frozen":
        model[4].weight.requires_grad_(False)
    else:
        weight_norm(model[4])
    optimizer = torch.optim.SGD((one for one in model.parameters() if one.requires_grad), lr=0.0)
    _, found = _recorder(model, find_wiring(model, (x,)), [optimizer])
    _backward(model, x, y)
    optimizer.step()
    norm = model[1]
    expected = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
    torch.testing.assert_close(found[0]["0"].units, expected.detach())
    # a rectifier's activity is proportional to its input: here both places say the same
    torch.testing.assert_close(found[0]["0"].units, _reference()["0"].units)


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_a_timestep_contributes_its_spikes_times_their_gradients(reset: str) -> None:
    torch.manual_seed(0)
    network = build_network(
        NetworkConfig(layers="6C3-AvgPool2-8FC-3FC", timesteps=4, reset=reset, threshold=0.3), (1, 6, 6), 3
    ).double()
    x, y = 3 * torch.rand(5, 1, 6, 6).double(), torch.randint(3, (5,))
    wiring = find_wiring(network, (x,))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    _, found = _recorder(network, wiring, [optimizer], timesteps=["conv1", "fc1"])
    _backward(network, x, y)
    optimizer.step()
    expected = {}
    for name, neuron in (("conv1", "spike1"), ("fc1", "spike_fc1")):
        gate = torch.ones(4, wiring.layers[name].units, dtype=torch.float64, requires_grad=True)

        def multiply(module, args, output, gate=gate):
            return output * gate.view(4, 1, -1, *[1] * (output.ndim - 3))

        handle = network.get_submodule(neuron).register_forward_hook(multiply)
        _backward(network, x, y)
        handle.remove()
        expected[name] = gate.grad
    norm = torch.cat([value.flatten() for value in expected.values()]).norm()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[0][name].timesteps, value / norm, rtol=1e-5, atol=1e-6, check_dtype=False
        )


def test_timesteps_weigh_alike_whatever_the_loss_is_scaled_by() -> None:
    def of(factor: float) -> Tensor:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 6), LIF(threshold=0.2), nn.Linear(6, 2))
        x = 3 * torch.rand(3, 5, 4)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        _, found = _recorder(network, find_wiring(network, (x,)), [optimizer], timesteps=["0"])
        (factor * network(x).square().sum()).backward()
        optimizer.step()
        return found[0]["0"].timesteps

    torch.testing.assert_close(of(1.0), of(4096.0))
    assert of(1.0).any()
