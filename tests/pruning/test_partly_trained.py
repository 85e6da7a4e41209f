"""Networks that are trained in part: frozen layers, adapters, layers that no optimizer steps, and what is given up."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dpap
from support.small_loop import BATCHES, X, run_epoch


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


def _alive(report: dpap.PruneReport) -> dict[str, int]:
    return {layer.name: layer.alive for layer in report.layers}


def _config(**options: Any) -> dpap.PruningConfig:
    return dpap.PruningConfig(**{"target": 0.5, "end_epoch": 3, **options})


@pytest.mark.parametrize("target_of", ["weights", "parameters", "macs"])
def test_what_is_trained_is_not_cut_in_the_place_of_what_is_frozen(target_of: Any) -> None:
    model = _network()
    for parameter in [*model[0].parameters(), *model[2].parameters()]:
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], 0.1)
    pruner = dpap.Pruner(model, X[:8], optimizer, _config(target_of=target_of))
    with pytest.warns(UserWarning, match="nothing of 0 was observed so far: frozen") as heard:
        for _ in range(4):
            run_epoch(model, optimizer)
            report = pruner.step()
    assert len(heard) == 1
    alive = _alive(report)
    assert alive["0"] == 32
    # layer 2 is judged by its reader, which learns; both are pruned as they would be in the whole
    assert 8 < alive["2"] < 32
    assert 8 < alive["4"] < 32
    assert 0.2 < report.achieved < 0.5


class _Adapted(nn.Module):
    """A frozen layer beside two small ones that learn, as in LoRA."""

    def __init__(self, base: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = (
            nn.Linear(base.in_features, rank, False),
            nn.Linear(rank, base.out_features, False),
        )
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def test_adapters_keep_their_rank_where_their_bases_are_frozen() -> None:
    model = _network().requires_grad_(False)
    for place in (0, 2, 4):
        model[place] = _Adapted(model[place])
    model[6].requires_grad_(True)
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], 0.01)
    pruner = dpap.Pruner(model, X[:8], optimizer, _config(synapses=False))
    with pytest.warns(UserWarning, match=r"nothing of 0\.base, 2\.base was observed"):
        for _ in range(4):
            run_epoch(model, optimizer)
            report = pruner.step()
    alive = _alive(report)
    assert alive["0.base"] == alive["2.base"] == 32
    assert min(alive[f"{place}.down"] for place in (0, 2, 4)) > 1


def test_what_is_unfrozen_later_is_pruned_from_then_on() -> None:
    model = _network()
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = dpap.Pruner(model, X[:8], optimizer, _config(end_epoch=6))
    with pytest.warns(UserWarning, match="nothing of 0 was observed"):
        for epoch in range(6):
            if epoch == 3:
                model.requires_grad_(True)
            run_epoch(model, optimizer)
            report = pruner.step()
    assert report.achieved == pytest.approx(0.5, abs=0.01)
    assert _alive(report)["0"] < 32


def test_gradients_that_nobody_clears_are_not_taken_for_those_of_the_step() -> None:
    """The optimizer has the last two layers alone, and clears theirs; the others' gradients only grow."""
    outcome = []
    for all_cleared in (True, False):
        model = _network()
        optimizer = torch.optim.SGD([*model[4].parameters(), *model[6].parameters()], 0.1)
        pruner = dpap.Pruner(model, X[:8], optimizer, _config())
        with pytest.warns(
            UserWarning, match="nothing of 0 was observed so far: frozen, stepped by no optimizer"
        ):
            for _ in range(3):
                run_epoch(model, optimizer, model.zero_grad if all_cleared else None)
                report = pruner.step()
        outcome.append(_alive(report))
    assert outcome[0] == outcome[1]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_layer_is_judged_by_itself_once_its_reader_is_frozen(set_to_none: bool) -> None:
    model = _network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    pruner = dpap.Pruner(model, X[:8], optimizer, _config(start_epoch=2, memory=0.5))
    sums = []
    for epoch in range(3):
        if epoch == 1:
            model[6].requires_grad_(False)
        run_epoch(model, optimizer, lambda: model.zero_grad(set_to_none))
        report = pruner.step()
        sums.append(float(pruner._state.statistics["4"].units.abs().sum()))
    # the memory of the first epoch alone would be a millionth of it by now
    assert sums[2] > 1e-3 * sums[0] > 0
    assert report.achieved == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("how", ["resumed", "copied"])
def test_a_run_in_which_a_layer_was_frozen_goes_on_to_the_same_bits(how: str) -> None:
    def run(broken: bool) -> dict[str, Tensor]:
        model = _network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        pruner = dpap.Pruner(model, X[:8], optimizer, _config())
        for epoch in range(4):
            if epoch == 1:
                model[6].requires_grad_(False)
            if epoch == 2 and broken and how == "copied":
                model, optimizer, pruner = copy.deepcopy((model, optimizer, pruner))
            if epoch == 2 and broken and how == "resumed":
                states = model.state_dict(), optimizer.state_dict(), pruner.state_dict()
                model = _network()
                model[6].requires_grad_(False)
                optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
                pruner = dpap.Pruner(model, X[:8], optimizer, _config())
                for one, state in zip((model, optimizer, pruner), states, strict=True):
                    one.load_state_dict(state)
            run_epoch(model, optimizer)
            pruner.step()
        return model.state_dict()

    expected, found = run(broken=False), run(broken=True)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_a_layer_behind_a_frozen_norm_and_before_a_frozen_reader_is_judged_by_itself() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    for part in (model[1], model[3]):
        part.requires_grad_(False)
    optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    pruner = dpap.Pruner(model, X[:8], optimizer, _config())
    for _ in range(3):
        run_epoch(model, optimizer)
        report = pruner.step()
    assert report.achieved == pytest.approx(0.5, abs=0.02)


class _Normalising(nn.Module):
    """A hand-written running normalisation between its layers, which lets what is silent speak."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.register_buffer("mean", torch.zeros(32))
        self.register_buffer("spread", torch.ones(32))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(hidden.mean(0), 0.1)
                self.spread.lerp_(hidden.std(0), 0.1)
        normed = (hidden - self.mean) / (self.spread + 1e-5)
        output: Tensor = self.last(torch.relu(self.second(torch.relu(normed))))
        return output


def test_layers_that_are_given_up_are_no_longer_counted() -> None:
    torch.manual_seed(0)
    model = _Normalising()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    pruner = dpap.Pruner(model, X[:8], optimizer, _config(synapses=False))
    with pytest.warns(UserWarning, match="units of first were silenced, but they"):
        for _ in range(4):
            run_epoch(model, optimizer)
            report = pruner.step()
    assert "first" not in _alive(report)
    left = sum(layer.weights_alive for layer in report.layers) / sum(layer.weights for layer in report.layers)
    assert report.sparsity == pytest.approx(1 - left)
    assert report.achieved == pytest.approx(0.5, abs=0.03)
    twin = _Normalising()
    again = dpap.Pruner(twin, X[:8], torch.optim.Adam(twin.parameters()), _config(synapses=False))
    twin.load_state_dict(model.state_dict())
    again.load_state_dict(pruner.state_dict())
    assert again.sparsity == pytest.approx(report.sparsity)


def test_without_an_optimizer_parts_and_what_is_unfrozen_are_observed() -> None:
    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.policy = nn.Linear(16, 32), nn.Linear(32, 4)

        def act(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.policy(torch.relu(self.trunk(x)))
            return hidden

        def forward(self, x: Tensor) -> Tensor:
            return self.act(x)

    torch.manual_seed(0)
    agent = Agent()
    agent.policy.requires_grad_(False)
    pruner = dpap.Pruner(agent, X[:8], None, _config())
    for epoch in range(2):
        if epoch == 1:
            agent.requires_grad_(True)
        for x, y in BATCHES:
            cross_entropy(agent.act(x), y).backward()
            agent.zero_grad()
        agent(X[:8])
        observed = pruner._state.statistics["trunk"].batches
        pruner.step()
        assert observed == len(BATCHES) * (epoch + 1)
