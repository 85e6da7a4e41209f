"""A run goes on to the same bits whatever is loaded first, and into whatever network; else the error gives the order."""

import copy
from collections.abc import Callable
from functools import cache
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS, Adam, Optimizer

import dpap
from dpap.models import NetworkConfig, build_network
from dpap.models.networks import SpikingNetwork

State = dict[str, dict[str, Any]]


def _plain() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    )


class Shuffled(nn.Module):
    """Halves of a layer are read in turn: which feature reads which unit depends on the units that are left."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act = nn.Linear(6, 16), nn.Linear(6, 16), nn.ReLU()
        self.middle, self.head = nn.Linear(32, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.cat([self.act(self.fc1(x)), self.act(self.fc2(x))], 1)
        return self.head(self.act(self.middle(wide.flip(1))))


def _spiking() -> nn.Module:
    return build_network(
        NetworkConfig(layers="8FC-BN-10FC-3FC", timesteps=3, threshold=0.3), (1, 2, 3), 3
    )


def _config(**more: Any) -> dpap.PruningConfig:
    settings = {"target": 0.6, "end_epoch": 4, "start_epoch": 1, "deaths_per_epoch": 2, "observe_every": 2}
    return dpap.PruningConfig(**{**settings, **more})


def _compact(build: Callable[[], nn.Module]) -> dpap.PruningConfig:
    if build is _spiking:
        return _config(compact="auto", timestep_target=0.3, synapses=False)
    return _config(compact="auto")


class Run:
    """A network with its optimizer and pruner, and an epoch of training."""

    def __init__(
        self,
        build: Callable[[], nn.Module],
        config: dpap.PruningConfig,
        seed: int = 0,
        optimize: Callable[[Any], Optimizer] = lambda parameters: Adam(parameters, 1e-2),
        network: nn.Module | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.model = build() if network is None else network
        self.optimizer = optimize(self.model.parameters())
        self.pruner = dpap.Pruner(self.model, self.batch(99)[0][:4], self.optimizer, config)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(number)
        images = torch.rand(12, 6, generator=generator)
        if isinstance(self.model, SpikingNetwork):
            images = images.view(12, 1, 2, 3)
        return images, torch.randint(3, (12,), generator=generator)

    def learn(self, epoch: int, batches: range = range(4)) -> "Run":
        self.model.train()
        for number in batches:
            images, labels = self.batch(10 * epoch + number)

            def closure(images: Tensor = images, labels: Tensor = labels) -> Tensor:
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.model(images), labels)
                loss.backward()
                return loss

            self.optimizer.step(closure)
        return self

    def epochs(self, numbers: range) -> "Run":
        for epoch in numbers:
            self.learn(epoch).pruner.step()
        return self

    def state(self) -> State:
        parts = (("pruner", self.pruner), ("model", self.model), ("optimizer", self.optimizer))
        return copy.deepcopy({name: part.state_dict() for name, part in parts})

    def load(self, state: State, *order: str) -> "Run":
        state = copy.deepcopy(state)
        for name in order:
            getattr(self, name).load_state_dict(state[name])
        return self


def _assert_same(one: Any, other: Any, path: str = "") -> None:
    """All that a run is, or part of it: weights, moments, masks, statistics, survival, counters."""
    one, other = (each.state() if isinstance(each, Run) else each for each in (one, other))
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key, value in one.items():
            _assert_same(value, other[key], f"{path}/{key}")
    elif isinstance(one, Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, list | tuple):
        _assert_same(dict(enumerate(one)), dict(enumerate(other)), path)
    else:
        assert one == other or (one != one and other != other), path


@cache
def _lived(build: Callable[[], nn.Module]) -> list[State]:
    """The states of a run before each epoch, and after the last."""
    run = Run(build, _compact(build))
    return [run.state(), *(run.epochs(range(epoch, epoch + 1)).state() for epoch in range(4))]


FIRST, LAST = ("pruner", "model", "optimizer"), ("model", "optimizer", "pruner")
ORDERS = [
    *((Shuffled, 3, order) for order in permutations(FIRST)),
    *((_spiking, 3, order) for order in (FIRST, LAST, ("optimizer", "model", "pruner"))),
    # nothing has died yet where timesteps die
    *((_spiking, epoch, order) for epoch in (0, 1) for order in (FIRST, LAST)),
]


@pytest.mark.parametrize(
    ("build", "epoch", "order"),
    ORDERS,
    ids=[f"{build.__name__}-{epoch}-{'-'.join(order)}" for build, epoch, order in ORDERS],
)
def test_whatever_is_loaded_first_a_run_goes_on_to_the_same_bits(
    build: Callable[[], nn.Module], epoch: int, order: tuple[str, ...]
) -> None:
    states = _lived(build)
    resumed = Run(build, _compact(build), seed=7)
    dense = resumed.pruner.state_dict()["original_index"]
    assert (epoch < 3) == all(
        len(index) == len(dense[name])
        for name, index in states[epoch]["pruner"]["original_index"].items()
    )
    resumed.load(states[epoch], *order).epochs(range(epoch, epoch + 1))
    _assert_same(resumed, states[epoch + 1])


@pytest.mark.parametrize("criterion", ["taylor", "bcm"])
def test_within_an_epoch_what_was_observed_is_resumed_too(criterion: str) -> None:
    target_of = "synaptic_operations" if criterion == "bcm" else "weights"
    config = _config(
        criterion=criterion, target_of=target_of, memory=0.0, observe_every=3, compact="auto", start_epoch=0
    )
    whole = Run(_spiking, config).epochs(range(2)).learn(2, range(3))
    saved = whole.state()
    resumed = Run(_spiking, config, seed=7).load(saved, "model", "pruner", "optimizer")
    reports = [run.learn(2, range(3, 4)).pruner.step() for run in (whole, resumed)]
    assert reports[0].layers == reports[1].layers and reports[0].epsilon == reports[1].epsilon
    for run in (whole, resumed):
        run.epochs(range(3, 4))
    _assert_same(resumed, whole)


def test_a_history_of_lbfgs_is_resumed_in_any_order() -> None:
    config = _config(deaths_per_epoch=1)

    def start(seed: int) -> Run:
        return Run(_plain, config, seed, lambda parameters: LBFGS(parameters, 0.1, max_iter=2))

    whole = start(0).epochs(range(2))
    whole.pruner.compact()
    whole.learn(2)
    saved = whole.state()
    whole.pruner.step()
    for order in (("optimizer", "model", "pruner"), ("pruner", "model", "optimizer")):
        resumed = start(7).load(saved, *order)
        resumed.pruner.step()
        _assert_same(resumed, whole)


@pytest.mark.parametrize("build", [Shuffled, _spiking])
def test_a_compact_state_goes_into_a_dense_network_without_a_pruner(build: Callable[[], nn.Module]) -> None:
    states = _lived(build)
    torch.manual_seed(7)
    fresh = build()
    parameters = list(fresh.parameters())
    assert dpap.load_state(fresh, states[3]["model"]) is fresh
    assert all(one is other for one, other in zip(parameters, fresh.parameters(), strict=True))
    _assert_same(dict(fresh.state_dict()), dict(states[3]["model"]))
    fresh.state_dict()["head.bias" if build is Shuffled else "fc3.bias"].zero_()
    assert states[3]["model"]["head.bias" if build is Shuffled else "fc3.bias"].any(), "no memory is shared"
    # what was compact before its pruner was made goes on with the state of the one that pruned it
    second = Run(build, _compact(build), network=fresh).load(states[3], "pruner", "model", "optimizer")
    _assert_same(second.epochs(range(3, 4)), states[4])


def test_load_state_refuses_another_network_and_leaves_it() -> None:
    other = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"0\.weight: the state has \(16, 6\), the network only \(4, 6\)"):
        dpap.load_state(other, _plain().state_dict())
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_the_networks_state_alone_is_not_enough_to_go_on() -> None:
    second = Run(Shuffled, _compact(Shuffled), seed=7).load(_lived(Shuffled)[3], "model")
    second.model.eval()(second.batch(0)[0])
    for call in (second.pruner.step, second.pruner.compact, second.pruner.state_dict):
        with pytest.raises(RuntimeError, match=r"load the pruner's state .* too.* dpap\.load_state\(model"):
            call()


def test_a_state_of_before_a_removal_is_refused_with_the_way_back() -> None:
    best, _, _, later, _ = _lived(Shuffled)
    run = Run(Shuffled, _compact(Shuffled), seed=7).load(later, *FIRST)
    with pytest.raises(RuntimeError, match=r"16 units of fc1.* do not come back: build network, optimizer"):
        run.model.load_state_dict(best["model"])
    with pytest.raises(ValueError, match="freshly built network"):
        run.pruner.load_state_dict(best["pruner"])


def test_sizes_that_no_removal_gives_are_refused_unchanged() -> None:
    run = Run(_plain, _config())
    before = copy.deepcopy(run.model.state_dict())
    state = _plain().state_dict()
    state["0.weight"] = state["0.weight"][:9]
    with pytest.raises(RuntimeError, match=r"load the pruner's state first.*; 0\.bias: \(16,\) in the state"):
        run.model.load_state_dict(state)
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    run.epochs(range(2))


@pytest.mark.parametrize("assign", [False, True])
def test_weights_that_are_rewound_are_silenced_again_and_counted_as_they_are(assign: bool) -> None:
    run = Run(_plain, _config())
    best = run.epochs(range(1)).state()["model"]
    run.epochs(range(1, 4))
    before = run.pruner.sparsity
    run.model.load_state_dict(copy.deepcopy(best), assign=assign)
    with pytest.warns(UserWarning, match="dead weights were no longer zero.* load the pruner's state"):
        assert run.pruner.sparsity == before
    weights = [one for name, one in run.model.named_parameters() if one.ndim == 2]
    zeros = sum(int((one == 0).sum()) for one in weights)
    assert zeros / sum(one.numel() for one in weights) == pytest.approx(before, abs=1e-9)
    run.model.load_state_dict(best)
    with pytest.warns(UserWarning, match="no longer zero"):
        run.model(run.batch(0)[0])
    run.model.load_state_dict(best)
    with pytest.warns(UserWarning, match="no longer zero"):
        run.pruner.compact()


def test_silent_timesteps_that_are_rewound_are_silenced_again() -> None:
    run = Run(_spiking, _config(timestep_target=0.4))
    run.epochs(range(4))
    before = {name: one.clone() for name, one in run.model.named_buffers() if "alive" in name}
    assert before and not all(bool(one.all()) for one in before.values())
    with torch.no_grad():
        for name, one in run.model.named_buffers():
            if "alive" in name:
                one.fill_(True)
    assert run.pruner.timestep_sparsity == pytest.approx(0.4, abs=0.05)
    for name, one in before.items():
        assert torch.equal(run.model.get_buffer(name), one)


def test_rewound_with_its_pruner_a_network_is_as_it_was() -> None:
    run = Run(_plain, _config()).epochs(range(2))
    earlier = run.state()
    later = run.epochs(range(2, 3)).state()
    for order in (LAST, FIRST):
        _assert_same(run.load(earlier, *order), earlier)
        _assert_same(run.epochs(range(2, 3)), later)
