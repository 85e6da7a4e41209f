"""What the callbacks have in common, without any framework."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import dpap
from dpap.integrations._examples import first_samples, inputs_of
from dpap.integrations._gate import Gate
from dpap.integrations._training import PrunedTraining, check_processes, of_network
from support.hooks import hooks, same
from support.small_digits import digits, small_network

CONFIG = dpap.PruningConfig(target=0.6, end_epoch=2, deaths_per_epoch=1, observe_every=1)
X, Y, _, _ = digits(64, 1)


def begun() -> tuple[nn.Module, torch.optim.Optimizer, PrunedTraining]:
    model = small_network()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    return model, optimizer, PrunedTraining(model, X[:8], [optimizer], CONFIG, Gate(model), {})


def train(model: nn.Module, optimizer: torch.optim.Optimizer, training: PrunedTraining) -> None:
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.step()
    training.step()


def states(
    model: nn.Module, optimizer: torch.optim.Optimizer, training: PrunedTraining
) -> list[dict[str, Any]]:
    return [copy.deepcopy(one.state_dict()) for one in (model, optimizer, training)]


def smaller() -> tuple[tuple[Any, ...], list[dict[str, Any]], list[dict[str, Any]]]:
    """A run that has become smaller, with its states before and after the removal."""
    run = begun()
    for _ in range(2):
        train(*run)
    before = states(*run)
    run[2].pruner.compact()
    return run, before, states(*run)


@pytest.mark.parametrize("order", ["weights, optimizer, pruner", "optimizer, pruner, weights"])
def test_a_smaller_state_is_taken_in_any_order(order: str) -> None:
    (model, optimizer, training), _, saved = smaller()
    resumed = begun()
    by_name = {"weights": 0, "optimizer": 1, "pruner": 2}
    for place in (by_name[part] for part in order.split(", ")):
        resumed[place].load_state_dict(saved[place])
    assert same(model, resumed[0])
    train(model, optimizer, training)
    train(*resumed)
    assert same(model, resumed[0])


def test_a_network_grows_again_for_a_larger_state_and_computes_what_it_did() -> None:
    (model, _, training), before, _ = smaller()
    dense = small_network().eval()
    dense.load_state_dict(before[0])
    model.load_state_dict(before[0])  # held back, for it does not fit
    assert model[0].out_channels < 12
    training.load_state_dict(before[2])
    assert torch.equal(model.eval()(X), dense(X))
    training.finish(compact=True)
    assert model[0].out_channels < 12
    torch.testing.assert_close(model(X), dense(X))
    training.gate.detach()
    assert hooks(model) == 0


def test_wrappers_follow_a_network_that_grows_again(tmp_path: Path) -> None:
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        (model, optimizer, training), before, _ = smaller()
        wrapper = DistributedDataParallel(model)
        check_processes(2, model, replace(CONFIG, compact="auto"))
        model.load_state_dict(before[0])
        training.load_state_dict(before[2])
        wrapper(X).sum().backward()
        optimizer.step()
        training.pruner.compact()
        wrapper(X).sum().backward()
        assert model[0].out_channels < 12
        training.gate.detach()
        training.detach()
    finally:
        dist.destroy_process_group()


def test_a_state_that_is_refused_leaves_the_optimizer_as_it_was() -> None:
    (_, optimizer, training), before, _ = smaller()
    kept = {name: dict(state) for name, state in optimizer.state.items()}
    with pytest.raises(ValueError, match="removed from this network"):
        training.load_state_dict(before[2], rebuild=False)
    assert kept.keys() == optimizer.state.keys()
    assert all(state["exp_avg"] is optimizer.state[name]["exp_avg"] for name, state in kept.items())


def test_weights_without_a_pruner_are_silenced_again_or_left_out_and_it_is_said() -> None:
    run = begun()
    early = states(*run)[0]
    for _ in range(2):
        train(*run)
    run[0].load_state_dict(early)
    with pytest.warns(UserWarning, match="from before later deaths"):
        run[2].finish(compact=False)
    (model, _, training), _, _ = smaller()
    last = copy.deepcopy(model)
    model.load_state_dict(early)
    with pytest.warns(UserWarning, match="the one that training ended with"):
        training.finish(compact=False)
    assert same(model, last)


def test_an_epoch_ends_once() -> None:
    model, optimizer, training = begun()
    nn.functional.cross_entropy(model(X), Y).backward()
    optimizer.step()
    assert training.step(4) is not None
    assert training.step(4) is None


def test_wrapped_optimizers_and_processes() -> None:
    class Wrapper:
        def __init__(self, optimizer: Any) -> None:
            self.optimizer, self.zero_grad = optimizer, optimizer.zero_grad

    network, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer, foreign = (torch.optim.SGD(each.parameters(), 0.1) for each in (network, other))
    assert of_network(network, [Wrapper(Wrapper(optimizer)), foreign]) == [optimizer]
    check_processes(1, network, dpap.PruningConfig(compact="auto"))
    check_processes(4, network, dpap.PruningConfig(compact="manual"))
    with pytest.raises(ValueError, match=r"4 processes.*no DistributedDataParallel holds it.*manual"):
        check_processes(4, network, dpap.PruningConfig(compact="auto"))


class Pairs(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(3) + index, "labels": torch.tensor(index)}


def test_examples_are_the_first_samples_and_leave_random_states_alone() -> None:
    class Takes(nn.Module):
        def forward(self, x: torch.Tensor, mask: None = None) -> torch.Tensor:
            return x

    before = torch.get_rng_state()
    batch = first_samples(torch.utils.data.DataLoader(Pairs(), batch_size=5, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())
    assert batch["labels"].tolist() == list(range(8))
    assert inputs_of(batch, Takes()).keys() == {"x"}
    assert torch.equal(inputs_of([batch["x"], batch["labels"]], Takes())[0], batch["x"])
    with pytest.raises(TypeError, match="give example_inputs"):
        inputs_of("text", Takes())
    with pytest.raises(ValueError, match="a stream"):
        first_samples(torch.utils.data.DataLoader(iter(())))  # type: ignore[arg-type]
