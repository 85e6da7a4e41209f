"""Hidden state is preserved and restored, object for object, whatever happens in between."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dpap.anatomy import register_neuron
from dpap.anatomy.hidden_state import accept, preserved_state, reset_state, slice_state


class Membranes(nn.Module):
    """A neuron that keeps state in every place that modules have."""

    def __init__(self) -> None:
        super().__init__()
        self.membrane: Tensor | None = None
        self.statistics: dict[str, object] = {"v": 0.0, "trace": [None, None]}
        self.steps = 0
        self.register_buffer("mem", torch.zeros(0), persistent=False)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, current: Tensor) -> Tensor:
        if self.membrane is None:
            self.membrane = torch.zeros_like(current)
        if self.mem.shape != current.shape:
            self.mem = torch.zeros_like(current)
        self.membrane = self.membrane + current
        self.mem = self.mem + current
        self.statistics["v"] = self.statistics["v"] + current
        self.statistics["trace"][self.steps % 2] = current
        self.count += 1
        self.steps += 1
        self.last = current
        return (self.membrane + self.mem + self.statistics["v"] >= 1).to(current.dtype)

    def reset_mem(self) -> None:
        self.membrane = None
        self.statistics = {"v": 0.0, "trace": [None, None]}
        self.mem.zero_() if not self.mem.requires_grad else None
        self.steps = 0


register_neuron(Membranes, spikes=True)


def _used() -> tuple[nn.Sequential, Membranes]:
    model = nn.Sequential(nn.Linear(3, 4), Membranes(), nn.BatchNorm1d(4))
    model(torch.rand(5, 3))
    neuron = model[1]
    assert isinstance(neuron, Membranes)
    assert neuron.membrane is not None
    assert neuron.membrane.grad_fn is not None
    return model, neuron


def _tensors(neuron: Membranes) -> list[Tensor]:
    return [
        neuron.membrane,
        neuron.mem,
        neuron.statistics["v"],
        neuron.statistics["trace"][0],
        neuron.count,
        neuron.last,
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored_as_the_same_object_with_the_same_values(fails: bool) -> None:
    model, neuron = _used()
    statistics, tensors = neuron.statistics, _tensors(neuron)
    values = [tensor.detach().clone() for tensor in tensors]
    versions = [tensor._version for tensor in tensors[:-2]]
    try:
        with preserved_state(model), torch.no_grad():
            assert neuron.membrane is None
            assert neuron.steps == 0
            model.eval()(torch.rand(2, 3))
            neuron.new = torch.ones(2)
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert neuron.statistics is statistics
    assert neuron.steps == 1
    assert not hasattr(neuron, "new")
    for tensor, now, value in zip(tensors, _tensors(neuron), values, strict=True):
        assert tensor is now
        assert torch.equal(tensor, value)
    assert versions == [tensor._version for tensor in tensors[:-2]]
    (neuron.membrane.sum() + neuron.mem.sum() + neuron.statistics["v"].sum()).backward()
    assert model[0].weight.grad is not None


def test_within_preserved_state_a_network_computes_as_a_fresh_one_whenever_it_is_reset() -> None:
    model, _ = _used()
    nn.init.constant_(model[0].weight, 0.15)
    fresh = copy.deepcopy(nn.Sequential(model[0], Membranes(), model[2])).eval()
    images = torch.rand(2, 3)
    expected = [fresh(images) for _ in range(3)]
    assert any(not torch.equal(expected[0], later) for later in expected)
    model.eval()
    with preserved_state(model), torch.no_grad():
        for _ in range(2):
            reset_state(model)
            assert all(torch.equal(model(images), output) for output in expected)


def test_what_surgery_changes_stays_and_nothing_else_does() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    linear, norm = model
    with preserved_state(model):
        linear.out_features = 2
        norm.num_features = 2
        norm.running_mean.data = norm.running_mean.data[:2]
        accept(norm.running_mean)
        norm.running_mean.add_(1)
        norm.eval()
    assert (linear.out_features, norm.num_features, norm.running_mean.tolist()) == (2, 2, [0, 0])
    assert norm.training


@pytest.mark.parametrize("preserved", [False, True])
@pytest.mark.parametrize("undone", ["not", "inside", "outside"])
def test_state_is_sliced_wherever_it_is_kept(preserved: bool, undone: str) -> None:
    model, neuron = _used()
    before = _tensors(neuron)
    index = torch.tensor([0, 3])
    if preserved:
        with preserved_state(model), torch.no_grad():
            model.eval()(torch.rand(2, 3))
            undo = slice_state(neuron, -1, 4, index)
            if undone == "inside":
                undo()
            reset_state(model)
    else:
        undo = slice_state(neuron, -1, 4, index)
        if undone == "inside":
            undo()
    if undone == "outside":
        undo()
    for old, new in zip(before, _tensors(neuron), strict=True):
        if undone != "not" or old.ndim == 0:
            assert new is old
        else:
            assert torch.equal(new, old[:, index])


def test_tensors_of_another_size_are_left_alone() -> None:
    _, neuron = _used()
    before = _tensors(neuron)
    slice_state(neuron, -2, 4, torch.tensor([0]))
    slice_state(neuron, -3, 5, torch.tensor([0]))
    assert all(new is old for new, old in zip(_tensors(neuron), before, strict=True))


def test_a_state_that_two_modules_share_stays_shared() -> None:
    class Bus(nn.Module):
        def __init__(self, bus: list[Tensor]) -> None:
            super().__init__()
            self.bus = bus

        def forward(self, current: Tensor) -> Tensor:
            self.bus.append(current)
            return torch.stack(self.bus).sum(0)

    bus: list[Tensor] = []
    model = nn.Sequential(Bus(bus), Bus(bus))
    with preserved_state(model):
        assert torch.equal(model(torch.ones(1, 1)), torch.full((1, 1), 2.0))
    assert bus == []
    assert model[0].bus is model[1].bus is bus
