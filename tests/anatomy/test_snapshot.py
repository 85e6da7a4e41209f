"""Making a pruner leaves a network as it was, bit for bit, whatever its modules do in a forward."""

import random
import weakref
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dpap
from dpap.anatomy.pytrees import all_tensors
from support.blocks import KINDS, build
from support.networks import Residual, Stepped


class Counts:
    """An object that is no module, and keeps state."""

    def __init__(self) -> None:
        self.calls, self.seen, self.mean = 0, [], torch.zeros(4)


class Restless(nn.Module):
    """Changes in every forward all that a module can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.rand(6))
        self.register_buffer("peak", torch.full((1,), -0.0))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("repeated", torch.zeros(1).expand(5))
        self.register_buffer("phase", torch.zeros(3, dtype=torch.complex64))
        self.plain, self.table = torch.zeros(3), np.zeros(3)
        self.number, self.text = 0, "a"
        self.history: deque[Tensor] = deque(maxlen=2)
        self.nested = OrderedDict(a=[torch.zeros(1)], b={"c": torch.zeros(2)})
        self.names = {"a"}
        self.counts = Counts()
        self.hidden = [nn.BatchNorm1d(6)]
        self.torch, self.numpy, self.python = (
            torch.Generator(),
            np.random.default_rng(0),
            random.Random(0),
        )

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        self.peak.data.add_(x.max() if self.number % 2 else 0.0)
        self.replaced = self.replaced + 1
        self.repeated.data = torch.ones(5)
        self.phase.data[0] += 1j
        self.plain += 1
        self.table += 1
        self.number, self.text = self.number + 1, self.text + "b"
        self.history.append(x)
        self.nested["a"].append(x)
        self.nested["b"]["c"] += 1
        self.names.add("b")
        self.counts.calls += 1
        self.counts.seen.append(x)
        self.counts.mean += 1
        self.first.weight.data *= 1.01
        self.scale.data = self.scale.data * 2
        self.last.bias.data.fill_(torch.nan)
        self.last.bias.data.zero_()
        self.norm.requires_grad_(False)
        self.norm.train()
        self.late = nn.Linear(2, 2)
        self.register_forward_hook(lambda module, args, output: None)
        with torch.enable_grad():
            self.last.weight.square().sum().backward()
        noise = torch.rand(1, generator=self.torch) + self.numpy.random() + self.python.random()
        noise = noise + torch.rand(1) + np.random.random() + random.random()  # noqa: NPY002
        hidden = self.hidden[0](self.norm(self.first(x)) * self.scale.abs())
        return self.last(F.relu(hidden) + 0.0 * noise)


def bits(tensor: Tensor) -> Any:
    """The bits of a tensor, also of NaN and zeros of either sign."""
    whole = tensor.detach().contiguous().reshape(-1)
    return tuple(tensor.shape), tensor.dtype, whole.numpy().tobytes()


def everything(model: nn.Module) -> dict[str, Any]:
    """All that a network holds."""
    # Python's own generator is drawn from by the type checks of these tests
    found: dict[str, Any] = {
        "torch": bits(torch.get_rng_state()),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002
    }
    for name, module in model.named_modules():
        for table in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks"):
            found[f"{name} {table}"] = {key: id(value) for key, value in vars(module)[table].items()}
        for key, value in vars(module).items():
            simple = isinstance(value, int | float | str | bool)
            found[f"{name} {key}"] = (value if simple else id(value)) if key[0] != "_" else None
            tensors = () if key[0] == "_" else all_tensors(value if not callable(value) else None)
            found[f"{name} {key} values"] = [(id(one), bits(one)) for one in tensors]
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for key, tensor in own:
            gradient = None if tensor.grad is None else (id(tensor.grad), bits(tensor.grad))
            found[f"{name} {key} tensor"] = bits(tensor), tensor.requires_grad, gradient, tensor.data_ptr()
    return found


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    assert [key for key in before if before[key] != after[key]] == []


@pytest.mark.parametrize("refused", [False, True])
def test_a_restless_network_is_as_it_was(refused: bool) -> None:
    model, x = Restless(), torch.rand(5, 4)
    model.last.weight.grad = torch.rand(3, 6)
    model.first.bias.data[0] = -0.0
    hidden = model.hidden[0]
    if refused:
        model.last.register_forward_pre_hook(lambda module, args: 1 / 0)
    before, given, statistics = everything(model), x.clone(), bits(hidden.running_mean)
    states = model.torch.get_state(), model.numpy.bit_generator.state, model.python.getstate()
    with torch.no_grad():
        if refused:
            with pytest.raises(ZeroDivisionError):
                dpap.find_wiring(model, (x,))
        else:
            wiring = dpap.find_wiring(model, (x,))
            dpap.surgery.trial.try_removal(model, wiring, (x,))
            assert wiring.layers["first"].can_die or wiring.layers["first"].reason
    assert_same(before, everything(model))
    assert torch.equal(x, given) and not vars(x)
    assert (model.number, model.text, model.names, len(model.history)) == (0, "a", {"a"}, 0)
    assert model.counts.calls == 0 and model.counts.seen == [] and not model.counts.mean.any()
    assert not model.table.any() and list(model.nested) == ["a", "b"] and len(model.nested["a"]) == 1
    assert bits(hidden.running_mean) == statistics
    assert torch.equal(model.torch.get_state(), states[0])
    assert (model.numpy.bit_generator.state, model.python.getstate()) == states[1:]


def _pruner(model: nn.Module, inputs: object) -> dpap.Pruner | None:
    try:
        return dpap.Pruner(model, inputs)
    except ValueError:
        return None


@pytest.mark.parametrize("kind", [*KINDS, "spiking", "residual", "stepped"])
def test_networks_are_as_they_were(kind: str) -> None:
    if kind in ("residual", "stepped"):
        model, inputs = (
            (Residual(), (torch.rand(2, 2, 6, 6),))
            if kind == "residual"
            else (Stepped(), (torch.rand(2, 5),))
        )
    else:
        model, inputs, *_ = build([kind], 3, torch.float32)
    model.train()
    before = everything(model)
    pruner = _pruner(model, inputs)
    if pruner is not None:
        pruner.detach()
    assert_same(before, everything(model))


class BatchNormAct(nn.BatchNorm2d):
    """A norm with its activation inside, as timm has it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Auxiliary(nn.Module):
    """Such norms, a parameter of the network's own, and a head that runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n = nn.Conv2d(3, 8, 3), BatchNormAct(8)
        self.b, self.m = nn.Conv2d(8, 8, 3), BatchNormAct(8)
        self.gain = nn.Parameter(torch.ones(1))
        self.out, self.aux = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        hidden = self.n(self.a(x))
        out = self.out(self.m(self.b(hidden)).mean((2, 3))) * self.gain
        return (out, self.aux(hidden.mean((2, 3)))) if self.training else out


def test_norms_with_an_activation_inside_keep_their_statistics_beside_heads_of_training() -> None:
    model = Auxiliary()
    for _ in range(3):
        model(torch.randn(8, 3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    before = everything(model)
    pruner = dpap.Pruner(model, x, config=dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1))
    assert pruner.wiring.training_paths
    assert {name for name, layer in pruner.wiring.layers.items() if layer.removable} == {"a", "b"}
    pruner.detach()
    assert_same(before, everything(model))


def test_a_refused_removal_leaves_the_network_as_it_was() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.steps = nn.Linear(4, 8), nn.Linear(8, 2), 0
            self.register_buffer("seen", torch.zeros(()))
            self.strict = False

        def forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            self.seen += 1
            hidden = F.relu(self.a(x))
            return self.b(hidden.view(-1, 8) if self.strict else hidden)

    model, x = Fixed(), torch.rand(4, 4)
    pruner = dpap.Pruner(model, x, config=dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1))
    model(x).sum().backward()
    pruner.step()
    model.strict = True
    before = everything(model)
    with pytest.raises(dpap.CompactionError):
        pruner.compact()
    assert_same(before, everything(model))


def test_buffers_that_observe_are_clean_after_a_removal_too() -> None:
    class Peak(nn.Module):
        """Keeps the largest value of each feature, in evaluation too."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("largest", torch.full((8,), -1.0))

        def forward(self, x: Tensor) -> Tensor:
            self.largest.data.copy_(torch.maximum(self.largest, x.detach().amax(0)))
            return x

    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), Peak(), nn.Linear(8, 2)), torch.rand(4, 4)
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
    pruner = dpap.Pruner(model, x, config=config)
    assert pruner.wiring.layers["0"].prunability == "prunable"
    assert model[2].largest.eq(-1).all()
    model(x).sum().backward()
    pruner.step()
    alive = torch.tensor([survival is not None for survival in pruner.survival()["0"]])
    held = model[2].largest.clone()
    pruner.compact()
    assert torch.equal(model[2].largest, held[alive])


def test_what_a_network_only_refers_to_is_left_alone() -> None:
    class Owner:
        """A trainer that holds its network, and to which the network refers."""

        def __init__(self, network: nn.Module) -> None:
            self.network = network

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 2)
            self.trainer = Owner(self)
            # as an attribute that is no child
            vars(self)["itself"], self.owner = weakref.proxy(self), weakref.proxy(self.trainer)
            self.seen = weakref.WeakKeyDictionary({self.first: 1})

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)))

    model = Network()
    itself, seen = vars(model)["itself"], model.seen.data
    assert dpap.find_wiring(model, (torch.rand(3, 4),)).layers["first"].prunability == "prunable"
    assert vars(model)["itself"] is itself and model.seen.data is seen
