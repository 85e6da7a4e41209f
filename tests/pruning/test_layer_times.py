"""Latency as the cost of a target: the clock is replaced, so that no test depends on the machine."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from dpap import Pruner, PruningConfig
from dpap.anatomy import find_wiring
from dpap.pruning import layer_times as module_under_test
from dpap.pruning.distributed import Ranks
from dpap.pruning.layer_times import layer_times
from dpap.surgery import Masks

CALL = 5.0  # what any call takes
EACH = {"0": 0.5, "2": 0.01, "4": 0.01}  # per weight


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[nn.Module], None]]:
    """Lets a layer take CALL and EACH per weight that it has at the time."""
    rates: dict[nn.Module, float] = {}
    now = [0.0]

    def passed(module: nn.Module) -> float:
        weights = sum(parameter.numel() for name, parameter in module.named_parameters() if "weight" in name)
        now[0] += (CALL + rates.get(module, 0.01) * weights) / 2  # once before and once after a call
        return now[0]

    def known(model: nn.Module) -> None:
        rates.update({model.get_submodule(name): rate for name, rate in EACH.items()})

    monkeypatch.setattr(module_under_test, "_now", passed)
    yield known


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).double()


X = torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pruned(model: nn.Module, target: float, **changes: Any) -> Pruner:
    config = PruningConfig(target=target, target_of="latency", end_epoch=1, start_epoch=0, **changes)
    return Pruner(model, X, config=config)


def test_each_layer_has_what_its_call_takes_and_what_its_weights_take(clock: Any) -> None:
    model = network()
    clock(model)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    wiring = find_wiring(model, (X,))
    times = layer_times(model, wiring, (X,), Ranks())
    for name, each in EACH.items():
        weights = model.get_submodule(name).weight.numel()
        # half of the time between two looks at the clock passes before the first, half before the second
        assert times[name].seconds == pytest.approx((CALL + each * weights) / 2)
        assert times[name].per_mac == pytest.approx(each / 2 / len(X))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_share_is_of_all_that_the_layers_take(clock: Any) -> None:
    model = network()
    clock(model)
    pruner = pruned(model, 0.15)
    model(X).square().sum().backward()
    report = pruner.step()
    assert pruner.config.prunes_synapses is False
    whole = sum(CALL + EACH[name] * model.get_submodule(name).weight.numel() for name in EACH)
    dense = {name: model.get_submodule(name).weight.numel() for name in EACH}
    pruner.compact()
    saved = sum(EACH[name] * (dense[name] - model.get_submodule(name).weight.numel()) for name in EACH)
    assert report.achieved == pytest.approx(saved / whole)
    assert pruner.achieved == pytest.approx(report.achieved)
    assert report.achieved == pytest.approx(
        0.15, abs=0.03
    )  # a unit of the first layer takes 0.04 of the whole
    again = pruned(network(), 0.15)
    again.load_state_dict(pruner.state_dict())
    assert again.achieved == pruner.achieved


def test_what_takes_long_dies_first(clock: Any) -> None:
    alive = {}
    for cost in ("latency", "macs"):
        model = network()
        clock(model)
        config = PruningConfig(
            target=0.3, target_of=cost, criterion="random_once", end_epoch=1, start_epoch=0
        )  # type: ignore[arg-type]
        pruner = Pruner(model, X, config=config)
        alive[cost] = {layer.name: layer.alive for layer in pruner.step().layers}
    # the first layer's weights take fifty times as long
    assert alive["latency"]["0"] < alive["macs"]["0"]


def test_a_target_out_of_reach_is_named_from_the_start(clock: Any) -> None:
    model = network()
    clock(model)
    with pytest.warns(UserWarning, match=r"95.0% of the latency, is out of reach: at most"):
        pruned(model, 0.95)


def test_layers_of_one_recurrent_module_share_its_time(clock: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(6, 8, num_layers=2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    model, x = Recurrent(), torch.rand(2, 5, 6)
    wiring = find_wiring(model, (x,))
    times = layer_times(model, wiring, (x,), Ranks())
    macs = wiring.layer_macs()
    inside = [name for name in times if name.startswith("rnn")]
    assert len(inside) >= 2
    assert len({times[name].per_mac for name in inside}) == 1
    per_mac = [times[name].seconds / macs[name] for name in inside]
    assert per_mac == pytest.approx([per_mac[0]] * len(inside))


def test_a_layer_that_inference_does_not_call_takes_nothing(clock: Any) -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head, self.aside = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> Any:
            x = self.trunk(x).relu()
            return (self.head(x), self.aside(x)) if self.training else self.head(x)

    model = Auxiliary().double()
    times = layer_times(model, find_wiring(model, (X,)), (X,), Ranks())
    assert times["head"].seconds > 0
    assert (times["aside"].seconds, times["aside"].per_mac) == (0, 0)


def test_a_network_without_calls_is_refused() -> None:
    model = network()
    wiring = find_wiring(model, (X,))
    for name in EACH:  # as in a network that only takes these layers' weights
        wiring.layers[name].module = copy.deepcopy(wiring.layers[name].module)
    with pytest.raises(ValueError, match="calls none"):
        layer_times(model, wiring, (X,), Ranks())


def test_the_quarter_is_of_every_layer() -> None:
    wiring = find_wiring(network(), (X,))
    masks = module_under_test._few(wiring)
    assert isinstance(masks, Masks)
    assert {name: int(alive.sum()) for name, alive in masks.units.items()} == {"0": 4, "2": 4}
