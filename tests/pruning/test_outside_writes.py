"""Other code than an optimizer's step writes into the network: the dead are silent whenever it is used or stored."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpap
from support.small_loop import BATCHES, X, backward, run_epoch, small_network


def _silent_network(
    **options: Any,
) -> tuple[nn.Sequential, torch.optim.Optimizer, dpap.Pruner, dict[str, Tensor]]:
    """A trained network of which the most is dead, and the weights of its first epoch, when nothing was."""
    model = small_network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    pruner = dpap.Pruner(model, X[:8], optimizer, dpap.PruningConfig(target=0.8, end_epoch=3, **options))
    first = {}
    for epoch in range(3):
        run_epoch(model, optimizer)
        first = first if epoch else copy.deepcopy(model.state_dict())
        pruner.step()
    return model, optimizer, pruner, first


def _zeros(model: nn.Module) -> int:
    return sum(int((one == 0).sum()) for one in model.parameters())


WRITERS = {
    "an average is copied back": lambda model, first: [
        one.data.copy_(first[name]) for name, one in model.named_parameters()
    ],
    "a part is loaded": lambda model, first: model[2].load_state_dict(
        {name.removeprefix("2."): one for name, one in first.items() if name.startswith("2.")}
    ),
    "a vector": lambda model, first: nn.utils.vector_to_parameters(
        torch.cat([one.flatten() for one in first.values()]), model.parameters()
    ),
    "noise": lambda model, first: [one.add_(0.1) for one in model.parameters()],
    "a bound": lambda model, first: [one.clamp_(min=1e-3) for one in model.parameters()],
    "norms": lambda model, first: [one.div_(one.norm(dim=1, keepdim=True)) for one in (model[0].weight,)],
}


# writing through .data does not show: that is silenced in evaluation, and after the next step
@pytest.mark.parametrize(
    ("how", "training"), [*((how, False) for how in WRITERS), *((how, True) for how in [*WRITERS][1:])]
)
def test_whatever_writes_into_the_dead_they_are_silent_in_the_next_forward(how: str, training: bool) -> None:
    model, _, pruner, first = _silent_network()
    dead = _zeros(model)
    model.train(training)
    with torch.no_grad():
        WRITERS[how](model, first)
    assert _zeros(model) < dead
    outputs = model(X)
    assert _zeros(model) == dead
    assert outputs.isfinite().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(model(X), outputs, rtol=0, atol=0)
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("leaves", [True, False])
def test_a_forward_with_other_weights_does_not_take_their_place(leaves: bool) -> None:
    model, optimizer, pruner, first = _silent_network()
    model.load_state_dict(first)
    fast = {name: one.clone().detach().requires_grad_() for name, one in model.named_parameters()}
    if not leaves:
        fast = {name: one * 1.0 for name, one in fast.items()}
    torch.func.functional_call(model, fast, (X,)).sum().backward()
    with pytest.warns(UserWarning, match="dead weights were no longer zero"):
        model(X)
    dead = _zeros(model)
    run_epoch(model, optimizer)
    assert _zeros(model) == dead
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("way", ["saved", "detached"])
def test_earlier_weights_are_silenced_before_they_are_stored(way: str, tmp_path: Any) -> None:
    model, _, pruner, first = _silent_network()
    dead = _zeros(model)
    model.load_state_dict(first)
    with pytest.warns(UserWarning, match="dead weights were no longer zero"):
        if way == "saved":
            dpap.save(model, tmp_path / "net.safetensors")
        else:
            pruner.detach()
    if way == "saved":
        model = dpap.load(tmp_path / "net.safetensors", small_network())
    assert _zeros(model) == dead


def test_gradients_of_the_dead_are_cleared_before_clipping_where_they_were_frozen_when_they_died() -> None:
    model, optimizer, _, _ = _silent_network()
    model[0].weight.requires_grad_(False)
    run_epoch(model, optimizer)
    model[0].weight.requires_grad_(True)
    optimizer.zero_grad()
    backward(model, *BATCHES[0])
    assert int((model[0].weight.grad == 0).sum()) >= int((model[0].weight == 0).sum()) > 100
