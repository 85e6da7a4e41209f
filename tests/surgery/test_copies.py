"""A moving average of a network that loses its dead is the moving average of the silenced one."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dpap.surgery.compact import what_remains
from dpap.surgery.copies import Copies
from dpap.surgery.slicing import Kept
from support.twins import Twin, batch, by_hand


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averages_stay_equal_over_two_removals(use_buffers: bool) -> None:
    silent, compact = (Twin(lambda model: [SGD(model.parameters(), 0.1, momentum=0.9)]) for _ in range(2))
    averages, copies = [], []
    for twin in (silent, compact):
        ema = get_ema_multi_avg_fn(0.7)
        average = AveragedModel(twin.model, multi_avg_fn=ema, use_buffers=use_buffers)
        averages.append(average)
        copies.append(Copies([average.module], twin.wiring, twin.optimizers))

    def learn(steps: range) -> None:
        for twin, average in zip((silent, compact), averages, strict=True):
            for step in steps:
                twin.optimizers[0].zero_grad()
                F.cross_entropy(twin.model(batch(step)), torch.arange(6) % 3).backward()
                twin.optimizers[0].step()
                average.update_parameters(twin.model)

    learn(range(3))
    origin = {name: torch.arange(layer.units) for name, layer in silent.wiring.layers.items()}
    for first, steps in ((1, range(3, 6)), (2, range(6, 9))):
        for name, alive in silent.masks.units.items():
            alive[first::3] = False
            compact.masks.units[name] = alive[origin[name]]
        for twin, follower in zip((silent, compact), copies, strict=True):
            twin.silence.impose(twin.masks)
            follower.impose(twin.masks)
        copies[1].keep_only(what_remains(compact.wiring, compact.masks.removable(compact.wiring)))
        kept = compact.compact()
        for name, units in kept.units.items():
            origin[name] = origin[name][units]
        learn(steps)
    units = {name: origin[name] for name in ("0", "3", "6")}
    block = torch.arange(64).view(4, 16)[units["3"]].flatten()
    state = by_hand(averages[0].module, Kept(units, {"3": units["0"], "6": block, "8": units["6"]}))
    for name, value in averages[1].module.state_dict().items():
        assert torch.allclose(value, state[name], rtol=1e-9, atol=1e-9), name
    assert torch.isfinite(averages[1](batch(0))).all()


def test_an_optimizer_of_a_copy_follows_too() -> None:
    def make(model: torch.nn.Module) -> list[SGD]:
        return [SGD(model.parameters(), 0.1, momentum=0.9)]

    twin = Twin(make)
    student = copy.deepcopy(twin.model)
    (optimizer,) = make(student)
    student(batch(0)).sum().backward()
    optimizer.step()
    copies = Copies([student], twin.wiring, [optimizer])
    twin.die()
    copies.impose(twin.masks)
    copies.keep_only(what_remains(twin.wiring, twin.masks.removable(twin.wiring)))
    optimizer.step()
    assert student[3].weight.shape == student[3].weight.grad.shape == (3, 3, 3, 3)
    assert optimizer.state[student[3].weight]["momentum_buffer"].shape == (3, 3, 3, 3)
