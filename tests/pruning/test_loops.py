"""Training loops that differ from the plain one: what they train is judged alike, and goes on to the same bits."""

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import dpap
from dpap.surgery import CompactionError
from support.small_loop import BATCHES, X, Y, backward, run_epoch, small_network


@pytest.mark.parametrize("rate", [1, 2, 3, 4])
@pytest.mark.parametrize("slow", ["head", "body"])
def test_optimizers_that_step_at_different_rates_are_all_observed(rate: int, slow: str) -> None:
    model = small_network()
    body = torch.optim.SGD([*model[0].parameters(), *model[2].parameters()], 0.05)
    head = torch.optim.SGD(model[4].parameters(), 0.05)
    config = dpap.PruningConfig(target=0.6, end_epoch=3, target_of="parameters")
    pruner = dpap.Pruner(model, X[:8], (body, head), config)
    rates = {body: rate if slow == "body" else 1, head: rate if slow == "head" else 1}
    for _ in range(4):
        for step, (x, y) in enumerate(BATCHES):
            backward(model, x, y)
            for optimizer, every in rates.items():
                if step % every == every - 1:
                    optimizer.step()
                    optimizer.zero_grad()
        report = pruner.step()
    died = {layer.name: layer.units - layer.alive for layer in report.layers}
    assert died["0"] > 4
    assert died["2"] > 4


class _TwoBranches(nn.Module):
    """Two tasks, one of which each step trains."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
        self.b = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))

    def forward(self, x: Tensor, task: int | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if task is None:
            return self.a(x), self.b(x)
        return self.b(x) if task else self.a(x)


@pytest.mark.parametrize("every", [2, 4])
def test_tasks_that_alternate_are_judged_alike(every: int) -> None:
    torch.manual_seed(0)
    model = _TwoBranches()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    config = dpap.PruningConfig(target=0.5, end_epoch=4, target_of="parameters", observe_every=every)
    pruner = dpap.Pruner(model, X[:8], optimizer, config)
    for _ in range(5):
        for step, (x, y) in enumerate(BATCHES * 2):
            optimizer.zero_grad()
            cross_entropy(model(x, step % 2), y).backward()
            optimizer.step()
        report = pruner.step()
    alive = {layer.name: layer.alive for layer in report.layers}
    assert abs(alive["a.0"] - alive["b.0"]) <= 8
    assert min(alive["a.0"], alive["b.0"]) < 24


@pytest.mark.parametrize("cut", [3, 4, 5, 6])
def test_a_step_that_not_all_optimizers_have_made_is_in_the_state(cut: int) -> None:
    def run(cut: int | None) -> dict[str, Tensor]:
        model = small_network()

        def optimizers(of: nn.Sequential) -> list[torch.optim.Optimizer]:
            return [torch.optim.Adam(of[:4].parameters(), 0.01), torch.optim.Adam(of[4].parameters(), 0.01)]

        def pruner_of(of: nn.Sequential, its: list[torch.optim.Optimizer]) -> dpap.Pruner:
            return dpap.Pruner(of, X[:8], its, dpap.PruningConfig(target=0.7, end_epoch=2, observe_every=1))

        own = optimizers(model)
        pruner = pruner_of(model, own)
        for epoch in range(3):
            for step, (x, y) in enumerate(BATCHES):
                backward(model, x, y)
                own[0].step()
                own[0].zero_grad()
                if step % 3 == 2:
                    own[1].step()
                    own[1].zero_grad()
                if epoch == 1 and step == cut:
                    file = io.BytesIO()
                    gradients = [copy.deepcopy(one.grad) for one in model.parameters()]
                    torch.save(
                        [pruner.state_dict(), model.state_dict(), [one.state_dict() for one in own]], file
                    )
                    pruner.detach()
                    file.seek(0)
                    states = torch.load(file, weights_only=True)
                    model = small_network()
                    own = optimizers(model)
                    pruner = pruner_of(model, own)
                    pruner.load_state_dict(states[0])
                    model.load_state_dict(states[1])
                    for one, state in zip(own, states[2], strict=True):
                        one.load_state_dict(state)
                    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                        parameter.grad = gradient
            pruner.step()
        return dict(model.state_dict())

    expected, found = run(None), run(cut)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_the_optimizer_may_be_compiled() -> None:
    torch._dynamo.reset()
    model = small_network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    pruner = dpap.Pruner(model, X[:8], optimizer, dpap.PruningConfig(target=0.6, end_epoch=2))
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler, about the profiler
        for _ in range(3):
            for x, y in BATCHES:
                optimizer.zero_grad()
                backward(model, x, y)
                step()
            report = pruner.step()
    assert report.achieved == pytest.approx(0.6, abs=0.01)
    torch._dynamo.reset()


@pytest.mark.parametrize("how", ["auto", "manual", "made within", "loaded within"])
def test_a_network_that_shrank_in_inference_mode_learns_on(how: str, tmp_path: Any) -> None:
    model = small_network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    compact = "auto" if how == "auto" else "manual"
    config = dpap.PruningConfig(target=0.7, end_epoch=2, target_of="parameters", compact=compact)
    with torch.inference_mode(how == "made within"):
        pruner = dpap.Pruner(model, X[:8], optimizer, config)
    for _ in range(3):
        run_epoch(model, optimizer)
        with torch.inference_mode():
            model.eval()(X)
            pruner.step()
        model.train()
    with torch.inference_mode():
        pruner.compact()
        if how == "loaded within":
            pruner.detach()
            path = dpap.save(model, tmp_path / "small.safetensors")
    if how == "loaded within":
        model = small_network()
        with torch.inference_mode():
            dpap.load(path, model)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    run_epoch(model, optimizer)
    assert model[0].out_features < 32


def test_earlier_weights_that_are_loaded_into_a_copy_are_silenced() -> None:
    model = small_network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    config = dpap.PruningConfig(target=0.8, end_epoch=4)
    pruner = dpap.Pruner(model, X[:8], optimizer, config, copies=average)
    saved = {}
    for epoch in range(4):
        run_epoch(model, optimizer)
        average.update_parameters(model)
        pruner.step()
        if epoch == 1:
            saved = copy.deepcopy(average.state_dict())
    average.load_state_dict(saved)
    with pytest.warns(UserWarning, match="dead weights were no longer zero in a copy"):
        assert pruner.sparsity == pytest.approx(0.8, abs=0.01)
    before = average.eval()(X)
    pruner.compact()
    torch.testing.assert_close(average(X), before)


class _Lookahead(torch.optim.Optimizer):
    """Writes weights after the optimizer inside has stepped, as Lookahead does."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups, self.state, self.defaults = optimizer.param_groups, optimizer.state, {}
        self.slow = {one: one.detach().clone() for group in self.param_groups for one in group["params"]}
        self.steps = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step(closure)
        self.steps += 1
        if self.steps % 3 == 0:
            for fast, slow in self.slow.items():
                slow.add_(fast - slow, alpha=0.5)
                fast.copy_(slow)


def test_what_a_wrapper_of_the_optimizer_writes_is_silenced_before_it_is_used() -> None:
    model = small_network()
    optimizer = _Lookahead(torch.optim.Adam(model.parameters(), 0.01))
    pruner = dpap.Pruner(model, X[:8], optimizer, dpap.PruningConfig(target=0.8, end_epoch=2))
    seen: list[float] = []

    def look(module: nn.Module, args: Any) -> None:
        if module.training:
            dead = torch.tensor([one is None for one in pruner.survival()["0"]])
            seen.append(float(module.weight.detach()[dead].abs().sum()))

    for _ in range(3):
        run_epoch(model, optimizer)
        pruner.step()
    model[0].register_forward_pre_hook(look)
    run_epoch(model, optimizer)
    assert set(seen) == {0.0}
    with pytest.raises(
        CompactionError, match=r"_Lookahead keeps tensors of its own, 'slow'.*\.slow\.clear\(\)"
    ):
        pruner.compact()
    assert model[0].out_features == 32
    optimizer.slow.clear()
    pruner.compact()
    assert model[0].out_features < 32


class _SharpnessAware(torch.optim.Optimizer):
    """Steps by the gradient at the worst point nearby (Foret et al., 2021), as its usual implementation does."""

    def __init__(self, parameters: Any, make: Any, rho: float = 0.05, **options: Any) -> None:
        super().__init__(parameters, dict(rho=rho, **options))
        self.base_optimizer = make(self.param_groups, **options)
        self.param_groups = self.base_optimizer.param_groups
        self.defaults.update(self.base_optimizer.defaults)

    @torch.no_grad()
    def first_step(self) -> None:
        parameters = [one for group in self.param_groups for one in group["params"] if one.grad is not None]
        norm = torch.stack([one.grad.norm() for one in parameters]).norm()
        for one in parameters:
            self.state[one]["old_p"] = one.data.clone()
            one.add_(one.grad * self.param_groups[0]["rho"] / (norm + 1e-12))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    one.data = self.state[one]["old_p"]
        self.base_optimizer.step()
        self.zero_grad()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.first_step()
        torch.enable_grad()(closure)()
        self.second_step()


@pytest.mark.parametrize("by_closure", [True, False])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_sharpness_aware_minimization_prunes_as_its_inner_optimizer_does(make: Any, by_closure: bool) -> None:
    """With no way to the worst point it is plain descent, so that the same has to die and to be left."""
    outcome = []
    for rho in (None, 0.0, 0.05):
        model = small_network()
        optimizer: Any = (
            make(model.parameters(), lr=0.01)
            if rho is None
            else _SharpnessAware(model.parameters(), make, rho, lr=0.01)
        )
        pruner = dpap.Pruner(
            model, X[:8], optimizer, dpap.PruningConfig(target=0.8, end_epoch=3, compact="auto")
        )
        for _ in range(4):
            for x, y in BATCHES:
                optimizer.zero_grad()
                backward(model, x, y)
                if rho is None:
                    optimizer.step()
                elif by_closure:
                    optimizer.step(lambda x=x, y=y, model=model: backward(model, x, y))
                else:
                    optimizer.first_step()
                    backward(model, x, y)
                    optimizer.second_step()
            pruner.step()
        assert model[0].out_features < 32
        outcome.append((model(X), pruner.survival()))
    plain, none, sharp = outcome
    torch.testing.assert_close(none, plain)
    assert not torch.equal(sharp[0], plain[0])


@pytest.mark.parametrize("lazy", ["whole", "last", "norm"])
def test_lazy_modules_that_have_not_run_are_refused_and_stay_usable(lazy: str) -> None:
    first = nn.LazyLinear(8) if lazy == "whole" else nn.Linear(16, 8)
    norm = nn.LazyBatchNorm1d() if lazy == "norm" else nn.BatchNorm1d(8)
    model = nn.Sequential(first, norm, nn.ReLU(), nn.LazyLinear(4) if lazy == "last" else nn.Linear(8, 4))
    for refused in (lambda: dpap.Pruner(model, X[:8]), lambda: dpap.find_wiring(model, (X[:8],))):
        with pytest.raises(ValueError, match=r"lazy modules that have not run yet.*run one forward"):
            refused()
    model(X[:8])
    assert dpap.Pruner(model, X[:8], config=dpap.PruningConfig(target=0.5, end_epoch=2)).wiring.layers


def test_a_pruner_may_be_made_and_used_within_autocast() -> None:
    model = small_network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    config = dpap.PruningConfig(target=0.6, end_epoch=2, target_of="macs", compact="auto")
    with torch.autocast("cpu", torch.bfloat16):
        pruner = dpap.Pruner(model, X[:8], optimizer, config)
        for _ in range(4):
            run_epoch(model, optimizer)
            report = pruner.step()
        pruner.compact()
        run_epoch(model, optimizer)
    assert report.achieved == pytest.approx(0.6, abs=0.05)
    assert model[0].out_features < 32


def test_a_state_of_another_criterion_is_refused() -> None:
    def pruner(criterion: str) -> dpap.Pruner:
        return dpap.Pruner(
            small_network(), X[:8], config=dpap.PruningConfig(target=0.5, end_epoch=2, criterion=criterion)
        )

    state = pruner("taylor_strength").state_dict()
    pruner("taylor_strength").load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"observed for criterion 'taylor_strength', and this pruner has 'magnitude'"
    ):
        pruner("magnitude").load_state_dict(state)


def test_weights_that_overflow_are_told_of_at_the_end_of_the_epoch_not_in_the_optimizers_step() -> None:
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    pruner = dpap.Pruner(model, X[:8], optimizer, dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=4))
    run_epoch(model, optimizer)
    pruner.step()
    with torch.no_grad():
        model[2].weight.flatten()[model[2].weight.abs().argmax()] = float("inf")
    with pytest.warns(UserWarning, match="not finite"):
        run_epoch(model, optimizer)
    with pytest.raises((ValueError, RuntimeError), match="batch"):
        pruner.step()


def test_what_a_state_holds_of_a_step_that_is_not_over_has_to_fit() -> None:
    model = small_network()
    optimizers = [torch.optim.SGD(model[:4].parameters(), 0.01), torch.optim.SGD(model[4].parameters(), 0.01)]
    pruner = dpap.Pruner(model, X[:8], optimizers, dpap.PruningConfig(target=0.5, end_epoch=2))
    backward(model, *BATCHES[0])
    optimizers[0].step()
    state = pruner.state_dict()
    found = state["observation"]["contributions"]["found"]
    assert found
    for wrong in (torch.zeros(99), torch.zeros(()), 1.0, None, "found"):
        bad = copy.deepcopy(state)
        bad["observation"]["contributions"]["found"] = dict.fromkeys(found, wrong)
        with pytest.raises(ValueError, match="observation, contributions, found"):
            pruner.load_state_dict(bad)
    bad = copy.deepcopy(state)
    bad["observation"]["contributions"]["samplers"] = {"0": 3}
    with pytest.raises(ValueError, match="observation, contributions, samplers, 0"):
        pruner.load_state_dict(bad)
    # of optimizers that this pruner does not have
    state["observation"]["contributions"]["stepped"] |= {"7": True, "first": True}
    state["observation"]["contributions"]["found"] = {"of another network": torch.zeros(3), **found}
    pruner.load_state_dict(state)
    assert pruner.state_dict()["observation"]["contributions"]["found"].keys() == found.keys()


class _OwnMoments(torch.optim.Optimizer):
    """Keeps its moments in a list, not in its state."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.05})
        self.moments = [torch.zeros_like(one) for one in self.param_groups[0]["params"]]
        self.table = [torch.ones(7)]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for one, moment in zip(self.param_groups[0]["params"], self.moments, strict=True):
            one.sub_(moment.mul_(0.9).add_(one.grad), alpha=0.05)


def test_an_optimizer_that_keeps_moments_elsewhere_forbids_removal() -> None:
    model = small_network()
    optimizer = _OwnMoments(model.parameters())
    pruner = dpap.Pruner(model, X[:8], optimizer, dpap.PruningConfig(target=0.5, end_epoch=2))
    for _ in range(2):
        run_epoch(model, optimizer)
        pruner.step()
    with pytest.raises(CompactionError, match="_OwnMoments keeps tensors of its own, 'moments'"):
        pruner.compact()
    run_epoch(model, optimizer)
    optimizer.moments.clear()
    pruner.compact()


@pytest.mark.parametrize("transform", ["grad", "vmap of grad"])
def test_transforms_of_torch_func_are_not_observed(transform: str) -> None:
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    config = dpap.PruningConfig.paper(target=0.5, end_epoch=2)
    pruner = dpap.Pruner(model, X[:8], optimizer, config)
    gradient = torch.func.grad(lambda w, x, y: cross_entropy(torch.func.functional_call(model, w, (x,)), y))
    weights = {name: one.detach() for name, one in model.named_parameters()}
    if transform == "grad":
        gradient(weights, X, Y)
    else:
        torch.func.vmap(gradient, in_dims=(None, 0, 0))(weights, X[:, None], Y[:, None])
    with pytest.raises(RuntimeError, match=r"no training forward .* within torch\.func nothing is observed"):
        pruner.step()


@pytest.mark.parametrize("place", [1, 2, 4])
def test_a_replaced_part_is_told_of(place: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)
    )
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    pruner = dpap.Pruner(model, X[:8], optimizer, dpap.PruningConfig(target=0.5, end_epoch=3))
    run_epoch(model, optimizer)
    pruner.step()
    model[place] = copy.deepcopy(model[place])
    optimizer.add_param_group({"params": model[place].parameters()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what died within the epoch does not show in the new one
        run_epoch(model, optimizer)
    for call in (pruner.step, pruner.compact, pruner.state_dict):
        with pytest.raises(RuntimeError, match=f"{place} is not the module any more .* detach\\(\\)"):
            call()
    pruner.detach()
    again = dpap.Pruner(model, X[:8], optimizer, dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1))
    run_epoch(model, optimizer)
    assert again.step().achieved == pytest.approx(0.5, abs=0.01)
