"""The trial removal: what leaves one by one, what leaves in groups, and what stays, is known before training."""

import copy

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.joined import components, unit_labels
from dpap.surgery import CompactionError, Masks
from dpap.surgery.compact import remove_dead
from dpap.surgery.culprits import find_culprits
from dpap.surgery.silence import impose
from dpap.surgery.trial import try_removal

IMAGES = (4, 3, 6, 6)


class Cut(nn.Module):
    """A stem, a block that cuts its channels into parts, and a head."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.channels = channels
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
        self.cut, self.act = nn.Conv2d(12, channels, 1), nn.ReLU()
        self.build(channels)
        self.head = nn.Linear(self.width, 3)

    width = 16

    def build(self, channels: int) -> None:
        raise NotImplementedError

    def block(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.block(self.act(self.cut(self.stem(x))))).mean((2, 3)))


class C2f(Cut):
    width = 24

    def build(self, channels: int) -> None:
        self.inner = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)

    def block(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([a, b, b + self.inner(b)], 1)


class Halves(Cut):
    """Two halves that go to layers of their own."""

    width = 10

    def build(self, channels: int) -> None:
        self.one, self.two = (nn.Conv2d(channels // 2, 5, 1) for _ in range(2))

    def block(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([self.one(a), self.two(b)], 1)


class Swapped(Cut):
    """Halves by a view, which change places."""

    def build(self, channels: int) -> None:
        pass

    def block(self, x: Tensor) -> Tensor:
        parts = x.unflatten(1, (2, -1))
        return torch.cat([parts[:, 1], parts[:, 0]], 1)


class Shuffled(Cut):
    """Channels shuffled over 4 groups."""

    def build(self, channels: int) -> None:
        self.after = nn.Conv2d(channels, 16, 1)

    def block(self, x: Tensor) -> Tensor:
        return self.after(x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2))


class Res2(Cut):
    """Four parts, each of which gets what the last one became."""

    def build(self, channels: int) -> None:
        self.convs = nn.ModuleList(nn.Conv2d(channels // 4, channels // 4, 3, padding=1) for _ in range(3))

    def block(self, x: Tensor) -> Tensor:
        first, *parts = x.chunk(4, 1)
        result, last = [first], torch.zeros(())
        for part, conv in zip(parts, self.convs, strict=True):
            last = torch.relu(conv(part + last))
            result.append(last)
        return torch.cat(result, 1)


class Ghost(Cut):
    """Half of the channels are cheap copies of the other half."""

    width = 32

    def build(self, channels: int) -> None:
        self.cheap = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def block(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.relu(self.cheap(x))], 1)[:, :32]


class FixedSplit(Cut):
    """Parts of a number of channels that the code holds."""

    def build(self, channels: int) -> None:
        self.inner = nn.Conv2d(channels // 2, channels // 2, 3, padding=1)

    def block(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, self.channels // 2, 1)
        return torch.cat([a, self.inner(b)], 1)


class Crooked(Cut):
    """Every channel is weighed by a number that its place gives it."""

    def build(self, channels: int) -> None:
        pass

    def block(self, x: Tensor) -> Tensor:
        return x * torch.arange(1, x.shape[1] + 1).to(x)[:, None, None]


TIED = {
    "C2f": (C2f, 2),
    "Halves": (Halves, 2),
    "Swapped": (Swapped, 2),
    "Shuffled": (Shuffled, 4),
    "Res2": (Res2, 4),
}


def _wired(model: nn.Module, example: Tensor) -> Wiring:
    wiring = find_wiring(model, (example,))
    try_removal(model, wiring, (example,))
    return wiring


def _random_masks(wiring: Wiring, seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    labels = unit_labels(wiring)
    dying = torch.rand(sum(map(len, labels.values())), generator=generator) < 0.4
    for name, alive in masks.units.items():
        # whole groups, and single units that have to wait for theirs
        alive &= ~dying[labels[name]] & (torch.rand(alive.shape, generator=generator) < 0.8)
        alive[int(torch.randint(len(alive), (), generator=generator))] = True
    return masks


def _check_removals(model: nn.Module, wiring: Wiring, example: Tensor) -> int:
    """Random removals are exact, with no layer that turns out to stay; returns how many units of `cut` left."""
    left = 0
    for seed in range(2):
        small, small_wiring = copy.deepcopy((model, wiring))
        masks = _random_masks(small_wiring, seed)
        impose(small, small_wiring, masks, ())
        silent = copy.deepcopy(small)
        kept, report = remove_dead(small, small_wiring, masks, (), (example,))
        assert not report.staying
        fresh = torch.randn(*example.shape)
        assert torch.allclose(small(fresh), silent(fresh), atol=1e-5)
        left += wiring.layers["cut"].units - len(kept.units.get("cut", range(wiring.layers["cut"].units)))
    return left


@pytest.mark.parametrize("case", TIED)
def test_units_of_parts_leave_together(case: str) -> None:
    torch.manual_seed(0)
    kind, parts = TIED[case]
    model, example = kind(), torch.randn(*IMAGES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    wiring = _wired(model, example)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert wiring.layers["cut"].prunability == "prunable", wiring.layers["cut"].reason
    assert [[name for name, _ in tie] for tie in wiring.ties] == [["cut"] * parts]
    assert _check_removals(model, wiring, example) > 0


def test_units_die_together_where_they_leave_together() -> None:
    torch.manual_seed(0)
    model, example = C2f(), torch.randn(*IMAGES)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    config = dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=1, target_of="parameters")
    pruner = dpap.Pruner(model, example, optimizer, config)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, *IMAGES[1:])).square().mean().backward()
        optimizer.step()
    pruner.step()
    alive = torch.tensor([survival is not None for survival in pruner.survival()["cut"]])
    assert torch.equal(alive[:8], alive[8:])
    achieved = pruner.achieved
    report = pruner.compact()
    assert 1 - report.parameters_after / report.parameters_before == pytest.approx(achieved)
    assert model.cut.out_channels == 2 * int(alive[:8].sum())


def test_copies_of_channels_leave_one_by_one() -> None:
    torch.manual_seed(0)
    model, example = Ghost(), torch.randn(*IMAGES)
    wiring = _wired(model, example)
    assert wiring.layers["cut"].prunability == "prunable" and not wiring.ties
    assert _check_removals(model, wiring, example) > 0


@pytest.mark.parametrize("kind", [FixedSplit, Crooked])
def test_what_cannot_leave_is_silenced_only(kind: type[Cut]) -> None:
    torch.manual_seed(0)
    model, example = kind(), torch.randn(*IMAGES)
    wiring = _wired(model, example)
    layer = wiring.layers["cut"]
    assert layer.prunability == "silenced" and "a trial removal failed" in layer.reason
    assert wiring.layers["stem.0"].prunability == "prunable"
    assert _check_removals(model, wiring, example) == 0


class Unused(nn.Module):
    """A residual stream of which the last layer is added to what nobody reads, as in most code of WaveNets."""

    def __init__(self, unused: bool = True) -> None:
        super().__init__()
        self.cut = nn.Conv1d(1, 16, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(16, 16, 3, padding=1) for _ in range(2))
        self.back = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(2))
        self.skips = nn.ModuleList(nn.Conv1d(16, 8, 1) for _ in range(2))
        self.last = nn.Conv1d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        stream, skip = self.cut(x), torch.zeros(())
        for dilated, back, onward in zip(self.dilated, self.back, self.skips, strict=True):
            inner = torch.relu(dilated(stream))
            skip = skip + onward(inner)
            stream = stream + back(inner)
        return self.last(torch.relu(skip))


def test_an_unused_layer_is_named_and_holds_nobody_back() -> None:
    torch.manual_seed(0)
    model, example = Unused(), torch.randn(2, 1, 20)
    wiring = _wired(model, example)
    unused = wiring.layers["back.1"]
    assert unused.unused and "it is unused" in unused.reason and unused.prunability == "follows"
    for name in ("cut", "back.0", "dilated.0", "dilated.1", "skips.0"):
        assert wiring.layers[name].prunability == "prunable", wiring.layers[name].reason
    assert _check_removals(model, wiring, example) > 0
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    alive, weights = masks.weights(wiring)["back.1"]
    assert alive == weights
    pruner = dpap.Pruner(model, example)
    assert pruner.sparsity == 0


def test_an_unused_layer_beside_nothing_is_named() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.beside, self.last = nn.Linear(4, 8), nn.Linear(8, 5), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.relu(self.one(x))
            self.beside(hidden)
            return self.last(hidden)

    wiring = _wired(Beside(), torch.randn(3, 4))
    layer = wiring.layers["beside"]
    assert (layer.prunability, layer.reason) == (
        "whole",
        "it is unused: nothing that it computes reaches the network's output",
    )
    assert wiring.layers["one"].prunability == "prunable"


def test_culprits_are_found_also_where_they_fail_only_together() -> None:
    sets = [[str(number)] for number in range(9)]

    def problem(names: list[str]) -> str | None:
        if "3" in names:
            return "three"
        return "five and seven" if {"5", "7"} <= set(names) else None

    assert find_culprits(sets, problem) == [(["3"], "three"), (["7"], "five and seven")]
    assert find_culprits(sets, lambda names: None) == []


def test_layers_are_connected_by_sums_groups_and_ties() -> None:
    wiring = _wired(C2f(), torch.randn(*IMAGES))
    assert sorted(map(sorted, components(wiring))) == [["cut", "inner"], ["head"], ["stem.0"]]


class Awkward(Cut):
    """Wrong only for what the trial cannot foresee: that more than nine channels leave."""

    def build(self, channels: int) -> None:
        pass

    def block(self, x: Tensor) -> Tensor:
        return x if x.shape[1] > 6 else x.flip(1)


def test_one_layer_that_cannot_leave_keeps_no_other() -> None:
    torch.manual_seed(0)
    model, example = Awkward(), torch.randn(*IMAGES)
    wiring = _wired(model, example)
    assert wiring.layers["cut"].prunability == "prunable"
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["cut"][4:] = False
    masks.units["stem.0"][3:] = False
    impose(model, wiring, masks, ())
    silent = copy.deepcopy(model)
    with pytest.warns(
        UserWarning, match="dead units of cut stay in the network as zeros, all others left it"
    ):
        kept, report = remove_dead(model, wiring, masks, (), (example,))
    assert set(kept.units) == {"stem.0"} and set(report.staying) == {"cut"}
    assert "dead units of cut stay" in str(report)
    assert wiring.layers["cut"].prunability == "silenced" and "cannot leave" in wiring.layers["cut"].reason
    assert model.cut.out_channels == 16 and model.stem[0].out_channels == 3
    fresh = torch.randn(*IMAGES)
    assert torch.allclose(model(fresh), silent(fresh), atol=1e-5)


def test_where_nothing_can_leave_the_error_says_so() -> None:
    torch.manual_seed(0)
    model, example = Awkward(), torch.randn(*IMAGES)
    wiring = _wired(model, example)
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["cut"][4:] = False
    impose(model, wiring, masks, ())
    with pytest.raises(CompactionError, match="nothing was removed"):
        remove_dead(model, wiring, masks, (), (example,))
    assert wiring.layers["cut"].prunability == "prunable"
