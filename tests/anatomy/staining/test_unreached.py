"""Branches that no example takes: what never ran keeps its width, and so does what it might read."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy import Wiring, find_wiring
from dpap.surgery import Masks
from dpap.surgery.compact import remove_dead
from dpap.surgery.trial import try_removal
from support.cases import EarlyExit


class Branches(nn.Module):
    """Takes one branch or the other, by its input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.stem(x))
        return self.left(hidden) if x.mean() > 0 else self.right(hidden)


class Expert(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


class Mixture(nn.Module):
    """Each row goes to the expert that its router prefers."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.experts = nn.ModuleList(Expert(8, 10) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.router(x).softmax(-1).max(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * weight[rows, None])
        return out


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.moe, self.head = nn.Linear(6, 8), Mixture(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        return self.head(hidden + self.moe(hidden))


class AddedBranch(nn.Module):
    """A branch whose output is added to other units."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.extra, self.head = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        if x.mean() < 0:
            hidden = hidden + self.extra(x)
        return self.head(torch.relu(hidden))


class JoinedBranch(nn.Module):
    """A branch that reads two layers at once, and normalises them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 7), nn.Linear(7, 9), nn.Linear(9, 11)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(11, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.relu(self.one(x))
        two = torch.relu(self.two(one))
        out = self.head(torch.relu(self.three(two)))
        return out if x.mean() > 0 else out + self.norm(torch.cat([one, two], -1)).mean(-1, keepdim=True)


def _wire(model: nn.Module, examples: object) -> Wiring:
    wiring = find_wiring(model, examples)  # type: ignore[arg-type]
    try_removal(model, wiring, examples)  # type: ignore[arg-type]
    return wiring


def _half_dead(wiring: Wiring) -> Masks:
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    for alive in masks.units.values():
        alive[::2] = False
    return masks


def _remove_half(model: nn.Module, wiring: Wiring, examples: object) -> None:
    dpap.surgery.silence.impose(model, wiring, masks := _half_dead(wiring), ())
    remove_dead(model, wiring, masks, (), examples)  # type: ignore[arg-type]


def test_what_a_branch_that_never_ran_might_read_stays() -> None:
    model, x = Branches(), torch.rand(4, 6)
    wiring = _wire(model, (x,))
    assert wiring.layers["right"].prunability == "whole"
    assert wiring.layers["right"].reason.startswith(
        "it never ran on the example inputs; give a further example"
    )
    assert wiring.layers["stem"].prunability == "silenced"
    assert wiring.layers["stem"].reason.startswith("right never ran on the example inputs and might read its")
    _remove_half(model, wiring, (x,))
    assert model(-x).shape == model(x).shape == (4, 3)


def _strong(x: Tensor) -> Tensor:
    return 100 * x


@pytest.mark.parametrize(
    ("build", "other", "removed"),
    [
        (Branches, torch.neg, {"stem"}),
        (AddedBranch, torch.neg, {"stem", "extra"}),
    ],
)
def test_with_an_example_of_each_branch_all_are_sliced(
    build: Callable[[], nn.Module], other: Callable[[Tensor], Tensor], removed: set[str]
) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.rand(4, 6)
    examples = [(x,), {"x": other(x)[:3]}]
    wiring = _wire(model, examples)
    assert {name for name, layer in wiring.layers.items() if layer.prunability == "prunable"} == removed
    masks = _half_dead(wiring)
    dpap.surgery.silence.impose(model, wiring, masks, ())
    before = [model(each) for each in (x, other(x))]
    remove_dead(model, wiring, masks, (), examples)
    assert model.stem.out_features in (6, 8)
    for old, new in zip(before, [model(each) for each in (x, other(x))], strict=True):
        assert torch.allclose(old, new, atol=1e-6)


@pytest.mark.parametrize("build", [EarlyExit, AddedBranch])
def test_one_example_keeps_what_the_other_branch_might_use(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.rand(4, 6)
    wiring = _wire(model, (x,))
    assert wiring.layers["stem"].prunability == "silenced"
    _remove_half(model, wiring, (x,))
    for each in (x, -x, _strong(x)):
        model(each)


def test_a_branch_that_reads_several_layers_keeps_each() -> None:
    model, x = JoinedBranch(), torch.rand(4, 6)
    wiring = _wire(model, (x,))
    assert {name: layer.prunability for name, layer in wiring.layers.items()} == {
        "one": "silenced",
        "two": "silenced",
        "three": "prunable",  # 11 units are no part of 16 features beside 7 and 9
        "head": "whole",
    }
    _remove_half(model, wiring, (x,))
    assert model(-x).shape == (4, 3)


def test_experts_that_no_row_is_routed_to_keep_their_width() -> None:
    torch.manual_seed(0)
    model, x = Sparse(), torch.randn(64, 6)
    with torch.no_grad():
        model.moe.router.weight.zero_()
        model.moe.router.bias.copy_(torch.tensor([2.0, 0.0, 1.0, 0.0]))
        model.moe.router.weight[2, 0] = 10.0
    wiring = _wire(model, (x,))
    ran = {
        name
        for name, layer in wiring.layers.items()
        if "never ran on the example inputs;" not in layer.reason
    }
    # the router's own choice decides, whatever dye it is given
    assert {name for name in ran if "experts" in name} == {
        f"moe.experts.{number}.{part}" for number in (0, 2) for part in ("up", "down")
    }
    assert wiring.layers["moe.experts.0.up"].prunability == "prunable"
    assert wiring.layers["moe.experts.2.up"].prunability == "prunable"
    assert wiring.layers["moe.experts.1.up"].prunability == "whole"
    _remove_half(model, wiring, (x,))
    assert model.moe.experts[0].up.out_features == 5
    with torch.no_grad():
        model.moe.router.bias[1] = 100.0
    assert model(x).shape == (64, 3)


@pytest.mark.parametrize("called", [False, True])
def test_layers_that_no_code_calls_hold_nobody_back(called: bool) -> None:
    class Leftover(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head, self.old = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(16, 5)
            self.spare = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.stem(x)))

    class Calls(Leftover):
        def forward(self, x: Tensor) -> Tensor:
            return _through_a_function(self, x) if x.mean() < 0 else super().forward(x)

    wiring = _wire(Calls() if called else Leftover(), (torch.rand(4, 6),))
    assert wiring.layers["stem"].prunability == ("silenced" if called else "prunable")
    assert wiring.layers["spare.1"].reason == "it is unused: no code of the network calls it"
    assert ("unused" in wiring.layers["old"].reason) != called


def _through_a_function(model: nn.Module, x: Tensor) -> Tensor:
    return model.old(torch.relu(model.stem(x)))


@pytest.mark.parametrize(
    ("size", "read"),
    [
        (20, lambda hidden, x: x.new_zeros(len(x), 20)),
        (32, lambda hidden, x: torch.cat([hidden, hidden], -1)),
        (22, lambda hidden, x: torch.cat([hidden, x], -1)),
        (8, lambda hidden, x: hidden.chunk(2, -1)[0]),
    ],
)
def test_only_what_a_branch_might_read_by_its_size_stays(
    size: int, read: Callable[[Tensor, Tensor], Tensor]
) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head, self.other = nn.Linear(6, 16), nn.Linear(16, 3), nn.Linear(size, 5)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.stem(x))
            return self.head(hidden) if x.mean() > 0 else self.other(read(hidden, x))

    wiring = _wire(Other(), (torch.rand(4, 6),))
    assert wiring.layers["stem"].prunability == ("prunable" if size == 20 else "silenced")


def test_parameters_that_another_module_uses_are_no_branch() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.attention = nn.Linear(6, 8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.inner, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.stem(x)
            hidden = hidden + self.attention(hidden, hidden, hidden)[0]
            return self.head(torch.relu(self.inner(hidden)))

    wiring = _wire(Tied(), (torch.rand(2, 5, 6),))
    assert "attention.out_proj" not in wiring.layers  # the attention itself multiplies by its weight
    assert wiring.layers["inner"].prunability == "prunable"


def test_layer_drop_in_training_hides_no_layer() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
            self.blocks = nn.ModuleList(Expert(8, 10) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.stem(x)
            for block in self.blocks:
                if not (self.training and torch.rand(()) < 0.7):
                    hidden = hidden + block(hidden)
            return self.head(hidden)

    torch.manual_seed(0)
    wiring = _wire(Drops().train(), (torch.rand(4, 6),))
    assert not any("never ran" in layer.reason for layer in wiring.layers.values())
    assert all(layer.prunability == "prunable" for name, layer in wiring.layers.items() if name != "head")


def test_training_goes_on_whichever_branch_a_step_takes() -> None:
    torch.manual_seed(0)
    model, x = Branches(), torch.rand(4, 6)
    optimizer = torch.optim.AdamW(model.parameters())
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1)
    pruner = dpap.Pruner(model, [x, -x], optimizer, config)
    for batch in (x, -x):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    assert pruner.step().sparsity > 0.4
    pruner.compact()
    assert model.right.in_features == model.left.in_features == model.stem.out_features < 16
    assert model(x).shape == model(-x).shape


def _wrapped(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def again(self: nn.Module, x: Tensor, depth: int = 1) -> Tensor:
        return again(self, x, depth - 1) if depth else function(self, x)

    return again


class Recursive(Branches):
    """Its forward is a function within a decorator that calls itself."""

    forward = _wrapped(Branches.forward)


def test_functions_that_call_themselves_are_read_to_their_end() -> None:
    wiring = find_wiring(Recursive(), (torch.ones(2, 6),))
    plain = find_wiring(Branches(), (torch.ones(2, 6),))
    assert {name: layer.reason for name, layer in wiring.layers.items()} == {
        name: layer.reason for name, layer in plain.layers.items()
    }
