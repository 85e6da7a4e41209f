"""Copies of a network that is being pruned, and of all that belongs to it: by deepcopy, by pickle, in a new process."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

import dpap
from dpap.models import NetworkConfig, build_network
from dpap.surgery.timesteps import KEY


def _config(**more: Any) -> dpap.PruningConfig:
    settings = {"target": 0.6, "end_epoch": 3, "start_epoch": 0, "deaths_per_epoch": 2, "synapses": False}
    return dpap.PruningConfig(**{**settings, **more})


def _start(**more: Any) -> tuple[nn.Module, Optimizer, dpap.Pruner]:
    torch.manual_seed(0)
    network = NetworkConfig(layers="8FC-BN-10FC-3FC", timesteps=3, threshold=0.3)
    model = build_network(network, (1, 2, 3), 3)
    optimizer = Adam(model.parameters(), 1e-2)
    return model, optimizer, dpap.Pruner(model, _batch(9)[0], optimizer, _config(**more))


def _batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.rand(8, 1, 2, 3, generator=generator), torch.randint(3, (8,), generator=generator)


def _learn(model: nn.Module, optimizer: Optimizer, epoch: int) -> None:
    model.train()
    for number in range(2):
        images, labels = _batch(10 * epoch + number)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()


def _hooks(model: nn.Module) -> list[Any]:
    return [
        hook
        for module in model.modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_load_state_dict_pre_hooks")
        for number, hook in getattr(module, kind).items()
        if number != KEY  # silenced timesteps belong to the network
    ]


COPY: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
}


@pytest.mark.parametrize("how", COPY)
def test_network_optimizer_and_pruner_are_copied_together_and_go_on_alike(how: str) -> None:
    own = _start(timestep_target=0.3, compact="auto")
    for epoch in range(2):
        _learn(own[0], own[1], epoch)
        own[2].step()
    copied = COPY[how](own)
    model, optimizer, pruner = copied
    assert pruner.model is model is not own[0] and pruner.wiring is not own[2].wiring
    before = copy.deepcopy(own[0].state_dict())
    for number, each in enumerate((copied, own)):
        if number:  # what happens to the copy does not reach the original
            assert all(torch.equal(value, before[name]) for name, value in own[0].state_dict().items())
        _learn(each[0], each[1], 2)
        each[2].step()
        each[2].compact()
    assert pruner.survival() == own[2].survival() and pruner.sparsity == own[2].sparsity
    for name, value in own[0].state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for name, parameter in model.named_parameters():
        moment = optimizer.state[parameter]["exp_avg"]
        assert torch.equal(moment, own[1].state[own[0].get_parameter(name)]["exp_avg"])
    pruner.detach()
    assert not _hooks(model) and _hooks(own[0])


@pytest.mark.parametrize("how", COPY)
@pytest.mark.parametrize("given", [True, False])
def test_a_copy_of_the_network_alone_is_the_users_own(how: str, given: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    pruner = dpap.Pruner(model, torch.rand(4, 6), optimizer if given else None, _config(end_epoch=1))
    for _ in range(2):
        model(torch.rand(8, 6)).square().sum().backward()
        optimizer.step()
    pruner.step()
    best = COPY[how](model)
    state = pruner.state_dict()
    with torch.no_grad():
        for parameter in best.parameters():
            parameter += 1.0
    best(torch.rand(8, 6)).sum().backward()
    assert all(parameter.all() for parameter in best.parameters()), "nothing silences the copy"
    assert best[0].weight.grad.ne(0).all()
    best.load_state_dict(best.state_dict())
    size = len(pickle.dumps(best))
    assert size < len(pickle.dumps(nn.Sequential(*best))) + 1000, "it does not carry the pruner along"
    assert str(pruner.state_dict()["statistics"]) == str(state["statistics"])
    assert dpap.Pruner(best, torch.rand(4, 6), config=_config()).sparsity == 0.0


def test_a_network_that_holds_its_pruner_can_be_copied() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
            self.pruner = dpap.Pruner(self, torch.rand(4, 6), config=_config())

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Module()
    average = copy.deepcopy(model)
    assert not [hook for hook in _hooks(average) if not getattr(hook, "hook", hook).idle]
    assert average.pruner.model is average and average.pruner.sparsity == 0.0  # from now on it observes
    average.train()(torch.rand(4, 6)).sum().backward()
    assert average.pruner.step().sparsity > 0
    assert model.pruner.sparsity == 0.0


def test_a_compact_spiking_network_runs_in_a_process_without_its_pruner(tmp_path: Path) -> None:
    model, optimizer, pruner = _start(timestep_target=0.3)
    for epoch in range(3):
        _learn(model, optimizer, epoch)
        pruner.step()
    report = pruner.compact()
    assert report.parameters_after < report.parameters_before and "timestep_alive" in str(model.state_dict())
    torch.save(model, tmp_path / "network.pt")
    images = _batch(0)[0]
    torch.save((images, model.eval()(images)), tmp_path / "expected.pt")
    code = (
        "import torch\n"
        f"model = torch.load({str(tmp_path / 'network.pt')!r}, weights_only=False).eval()\n"
        f"images, expected = torch.load({str(tmp_path / 'expected.pt')!r})\n"
        "assert torch.equal(model(images), expected)\n"
        "model.train()(images).sum().backward()\n"
        # hooks of this process do not take the place of those that came along
        "for _ in range(200):\n"
        "    for module in model.modules():\n"
        "        module.register_forward_hook(lambda *call: None)\n"
        "assert torch.equal(model.eval()(images), expected)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
