"""Which modules count as neurons, over which axis their time runs, and how they are reset."""

import pytest
import torch
from torch import Tensor, nn

from dpap.anatomy import neuron_kind, register_neuron
from dpap.anatomy.neurons import reset_module
from dpap.spiking import LIF


class Plain(nn.Module):
    """A neuron with a method that resets it."""

    def __init__(self) -> None:
        super().__init__()
        self.mem = torch.ones(2)

    def forward(self, current: Tensor) -> Tensor:
        return current

    def reset_mem(self) -> None:
        self.mem = torch.zeros(2)


class Recurrent(Plain):
    """A neuron that connects its units."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.Linear(2, 2)


def test_the_nearest_registered_class_decides() -> None:
    class Parent(nn.Module):
        pass

    class Child(Parent):
        pass

    class GrandChild(Child):
        pass

    assert neuron_kind(Parent()) is None
    register_neuron(Parent, spikes=True, time_axis=0)
    register_neuron(Child, spikes=False)
    kinds = [neuron_kind(module()) for module in (Parent, Child, GrandChild)]
    assert [kind.spikes for kind in kinds if kind is not None] == [True, False, False]


def test_time_may_depend_on_the_module() -> None:
    class Either(nn.Module):
        def __init__(self, multi: bool) -> None:
            super().__init__()
            self.multi = multi

    register_neuron(Either, spikes=True, time_axis=lambda module: 1 if module.multi else None)
    for multi, axis in ((True, 1), (False, None)):
        module = Either(multi)
        kind = neuron_kind(module)
        assert kind is not None
        assert kind.time_axis_of(module) == axis


def test_modules_that_connect_their_units_are_not_neurons() -> None:
    register_neuron(Plain, spikes=True)
    assert neuron_kind(Plain()) is not None
    assert neuron_kind(Recurrent()) is None


def test_neurons_are_reset_by_their_method_or_by_what_the_user_gives() -> None:
    register_neuron(Plain, spikes=True)
    neuron = Plain()
    reset_module(neuron)
    assert torch.equal(neuron.mem, torch.zeros(2))
    register_neuron(Plain, spikes=True, reset=lambda module: setattr(module, "mem", None))
    reset_module(neuron)
    assert neuron.mem is None


def test_neurons_without_state_need_no_reset() -> None:
    for module in (LIF(), nn.ReLU(), nn.Linear(2, 2)):
        reset_module(module)


def test_only_classes_of_modules_can_be_registered() -> None:
    with pytest.raises(TypeError):
        register_neuron(nn.ReLU(), spikes=False)
