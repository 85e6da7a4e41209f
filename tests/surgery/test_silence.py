"""Dead means silent: zero after every optimizer step, and not one spike."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from dpap.anatomy import Wiring, find_wiring
from dpap.models import NetworkConfig, build_network
from dpap.surgery import Masks, Silence
from dpap.surgery.optimizer import moments
from dpap.surgery.silence import dead_tensors
from support.twins import Twin, batch, by_hand

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd momentum": lambda p: SGD(p, 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adam": lambda p: Adam(p, 0.01, weight_decay=1e-3),
    "adamw": lambda p: AdamW(p, 0.01, amsgrad=True),
    "rmsprop": lambda p: RMSprop(p, 0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: Adagrad(p, 0.01, initial_accumulator_value=0.1),
}
NETWORK = NetworkConfig(layers="6C3-BN-AvgPool2-8C3-BN-12FC-3FC", timesteps=3, threshold=0.1)


def _network() -> tuple[nn.Module, Tensor, Wiring, Masks]:
    torch.manual_seed(1)
    model, images = build_network(NETWORK, (1, 6, 6), 3), 2 * torch.rand(8, 1, 6, 6)
    wiring = find_wiring(model, (images,))
    masks = Masks.all_alive(wiring, synapses=True, timesteps=False)
    for alive in masks.units.values():
        alive[::3] = False
    masks.synapses["fc1"] &= torch.rand(masks.synapses["fc1"].shape) < 0.5
    return model, images, wiring, masks


def _train(model: nn.Module, images: Tensor, optimizer: Optimizer, accumulate: int = 1) -> None:
    model.train()
    optimizer.zero_grad()
    for _ in range(accumulate):
        F.cross_entropy(model(images + torch.rand_like(images)), torch.arange(8) % 3).backward()
    optimizer.step()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_not_one_dead_weight_or_moment_is_ever_nonzero(kind: str, accumulate: int) -> None:
    model, images, wiring, masks = _network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    silence = Silence(model, wiring, [optimizer])
    for _ in range(3):
        _train(model, images, optimizer, accumulate)
    everything = {name: value.clone() for name, value in model.named_parameters()}
    silence.impose(masks)
    dead = dead_tensors(wiring, masks)
    assert sum(int(entries.sum()) for _, entries in dead) > 500
    for _ in range(5):
        _train(model, images, optimizer, accumulate)
        for tensor, entries in dead:
            assert not tensor[entries].any()
            assert tensor[~entries].any() or not (~entries).any()
            if isinstance(tensor, nn.Parameter):
                for name, moment in moments(optimizer, tensor):
                    started = 0.1 if kind == "adagrad" and name == "sum" else 0.0
                    assert bool((moment[entries] <= started).all())
    assert any(not torch.equal(value, everything[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize("training", [True, False])
def test_dead_neurons_emit_nothing(training: bool) -> None:
    model, images, wiring, masks = _network()
    optimizer = SGD(model.parameters(), 1e-3, momentum=0.9)
    Silence(model, wiring, [optimizer]).impose(masks)
    for _ in range(30):
        _train(model, images, optimizer)
    model.train(training)
    fired: dict[str, Tensor] = {}
    for source, neuron in (("conv1", "spike1"), ("conv2", "spike2"), ("fc1", "spike_fc1")):
        model.get_submodule(neuron).register_forward_hook(
            lambda module, args, output, source=source: fired.update(
                {source: output.transpose(0, 2).flatten(1)}
            )
        )
    model(images)
    for source, spikes in fired.items():
        assert not spikes[~masks.units[source]].any()
    assert fired["conv1"].any() and (fired["conv2"].any() or not training)


def test_without_an_optimizer_silence_holds_at_every_forward() -> None:
    model, images, wiring, masks = _network()
    Silence(model, wiring, []).impose(masks)
    for parameter in model.parameters():
        parameter.data += 1
    model(images)
    for tensor, entries in dead_tensors(wiring, masks):
        assert not tensor[entries].any()


def test_gradients_of_the_dead_never_reach_the_optimizer() -> None:
    model, images, wiring, masks = _network()
    optimizer = SGD(model.parameters(), 0.1)
    Silence(model, wiring, [optimizer]).impose(masks)
    seen: list[float] = []
    dead = dead_tensors(wiring, masks)

    def record(*args: object) -> None:
        seen.extend(float(t.grad[e].abs().sum()) for t, e in dead if t.grad is not None)

    optimizer.register_step_pre_hook(record)
    _train(model, images, optimizer)
    assert seen and not any(seen)


def test_once_hooks_are_removed_the_dead_can_change() -> None:
    model, images, wiring, masks = _network()
    optimizer = SGD(model.parameters(), 0.1, weight_decay=0.1)
    silence = Silence(model, wiring, [optimizer])
    silence.impose(masks)
    silence.remove()
    _train(model, images, optimizer)
    weight = model.get_submodule("fc1").weight
    assert weight[~masks.synapses["fc1"]].any()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_clipping_scaling_and_schedules_work_as_without_the_dead(accumulate: int, frozen: bool) -> None:
    def make(model: nn.Module) -> list[Optimizer]:
        model[3].requires_grad_(not frozen)
        return [AdamW([one for one in model.parameters() if one.requires_grad], 0.01, amsgrad=True)]

    twins, norms = [Twin(make), Twin(make)], []
    learning = []
    for twin in twins:
        (optimizer,) = twin.optimizers
        learning.append(
            (
                torch.amp.GradScaler("cpu", init_scale=2.0**6, growth_interval=2),
                torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=12),
                torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
            )
        )

    def learn(steps: range) -> None:
        for twin, (scaler, cycle, plateau) in zip(twins, learning, strict=True):
            (optimizer,) = twin.optimizers
            for step in steps:
                optimizer.zero_grad()
                for part in range(accumulate):
                    loss = F.cross_entropy(twin.model(batch(10 * step + part)), torch.arange(6) % 3)
                    scaler.scale(loss).backward()
                scaler.unscale_(optimizer)
                norms.append(float(nn.utils.clip_grad_norm_(twin.model.parameters(), 0.05)))
                scaler.step(optimizer)
                scaler.update()
                cycle.step()
                plateau.step(float(loss.detach()))

    learn(range(3))
    for twin in twins:
        twin.die()
    kept = twins[1].compact()
    norms.clear()
    learn(range(3, 8))
    assert norms[:5] == pytest.approx(norms[5:], rel=1e-9) and min(norms) > 0.05
    state = by_hand(twins[0].model, kept)
    for name, value in twins[1].model.state_dict().items():
        assert torch.allclose(value, state[name], rtol=1e-9, atol=1e-9), name


def test_a_layer_that_is_thawed_later_is_silent_too() -> None:
    def make(model: nn.Module) -> list[Optimizer]:
        return [SGD(model[3].requires_grad_(False).parameters(), 0.1, momentum=0.9)]

    twin = Twin(make)
    twin.die()
    twin.model[3].requires_grad_(True)
    for step in range(3):
        twin.model(batch(step)).square().sum().backward()
        twin.optimizers[0].step()
    assert not twin.model[3].weight[~twin.masks.units["3"]].any() and twin.model[3].weight.grad.any()
    for _, moment in moments(twin.optimizers[0], twin.model[3].weight):
        assert not moment[~twin.masks.units["3"]].any()
