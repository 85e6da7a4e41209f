"""The criterion `released` reproduces the released code; see tests/golden/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dpap.plasticity import (
    CRITERIA,
    LayerContext,
    normalise,
    population_activity,
    survival_change,
    update_survival,
)

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASED = CRITERIA["released"]
GAMMA = 0.999


def near(ours: torch.Tensor, theirs: np.ndarray, tolerance: float = 1e-12) -> bool:
    return np.abs(ours.double().numpy() - theirs).max() <= tolerance * max(np.abs(theirs).max(), 1e-300)


class Driven:
    """Survival of some units under the released constants of conv (epsilon 0.65) or fully connected layers."""

    def __init__(self, start, fully_connected: bool):
        self.survival = start
        self.alive = torch.ones_like(start, dtype=torch.bool)
        self.epsilon, self.protection, self.eta = (1.5, 2.0, 13.0) if fully_connected else (0.65, 5.0, 12.0)
        self.change = torch.zeros_like(start)

    def step(self, importance, epoch: int) -> None:
        normalised = RELEASED.normalise(importance, self.alive)
        self.change = survival_change(normalised, self.epsilon, self.protection, RELEASED.strict)
        self.survival = update_survival(self.survival, self.change, GAMMA, RELEASED.decay(epoch, self.eta))
        self.alive &= self.survival >= 0


@pytest.fixture(scope="module")
def driven():
    with np.load(GOLDEN / "driven.npz") as arrays:
        return dict(arrays)


def spikes(driven, index: int) -> torch.Tensor:
    shape = tuple(driven[f"spk_{8 if index == 7 else index}_shape"])
    bits = np.unpackbits(driven[f"spk_{8 if index == 7 else index}"], count=np.prod(shape)).reshape(shape)
    if index == 7:
        bits = bits.reshape(*shape[:-1], 24, 2, 2)
    return torch.from_numpy(bits).double()


def counts(driven, index: int) -> list[list[torch.Tensor]]:
    return [[population_activity(batch) for batch in epoch] for epoch in spikes(driven, index)]


def context(statistics) -> LayerContext:
    return LayerContext(statistics, lambda: torch.zeros(0, 0), "", 0, 0)


@pytest.mark.parametrize("index", [5, 6, 7, 8, 9])
def test_traces(driven, index):
    theirs = driven[f"{'fcsum' if index > 7 else 'csum'}_{index}"]
    ours = [RELEASED.presentation(batch, batch, 0.5).post_trace for batch in counts(driven, index)[0]]
    assert near(torch.stack(ours), theirs)


@pytest.mark.parametrize(("before", "layer"), [(5, 6), (6, 7), (8, 9)])
def test_forty_driven_epochs(driven, before, layer):
    pre, post = counts(driven, before), counts(driven, layer)
    units, features = post[0][0].shape[2], pre[0][0].shape[2]
    statistics = RELEASED.blank(units, features, synapses=True, dtype=torch.float64)
    rows_only = RELEASED.blank(units, features, synapses=False, dtype=torch.float64)
    fully_connected = layer == 9
    neurons = Driven(torch.full((units,), 10.0, dtype=torch.float64), fully_connected)
    synapses = Driven(torch.full((units, features), 10.0, dtype=torch.float64), fully_connected)
    shape = (40, units, features) if fully_connected else (40, units)
    masks = np.unpackbits(driven[f"mask_{layer}"], count=np.prod(shape)).reshape(shape)
    shown = driven["shown"].tolist()
    for epoch in range(40):
        for kept in (statistics, rows_only):
            RELEASED.begin_interval(kept)
            for arriving, leaving in zip(pre[epoch], post[epoch], strict=True):
                RELEASED.observe(kept, arriving, leaving, 0.5)
        importance = RELEASED.unit_importance(context(statistics))
        assert torch.equal(importance, RELEASED.unit_importance(context(rows_only)))
        assert near(importance, driven[f"spines_{layer}"][epoch])
        if epoch > 4:
            neurons.step(importance, epoch)
            synapses.step(RELEASED.synapse_importance(context(statistics)), epoch)
            assert near(neurons.change, driven[f"n_delta_{layer}"][epoch])
            assert near(neurons.survival, driven[f"reduce_{layer}"][epoch])
        alive = synapses.alive & neurons.alive[:, None] if fully_connected else neurons.alive
        assert (alive.numpy() == masks[epoch]).all()
        if epoch in shown:
            at = shown.index(epoch)
            assert near(statistics.synapses, driven[f"bcm_{layer}"][at])
            assert near(statistics.threshold, driven[f"neuron_th_{layer}"][at])
            assert near(statistics.activity, driven[f"epoch_trace_{layer}"][at])
            if fully_connected and epoch > 4:
                assert near(synapses.change, driven["ww_delta_9"][at])
                assert near(synapses.survival, driven["reduceww_9"][at])
    assert 0 < alive.sum() < alive.numel()


def test_both_normalisations():
    with np.load(GOLDEN / "unit.npz") as arrays:
        names = [name[:-2] for name in arrays if name.endswith("_x")]
        assert len(names) == 26
        for name in names:
            values = torch.from_numpy(arrays[f"{name}_x"])
            alive = torch.ones_like(values, dtype=torch.bool)
            tolerance = 1e-12 if values.dtype == torch.float64 else 1e-6
            assert near(RELEASED.normalise(values, alive), arrays[f"{name}_unit"], tolerance)
            assert near(normalise(values, alive), arrays[f"{name}_unit_tensor"], tolerance)


def test_decay():
    with np.load(GOLDEN / "decay.npz") as arrays:
        for at, epoch in enumerate(arrays["epoch"].tolist()):
            for kind, eta in (("conv", 12.0), ("fc", 13.0)):
                assert RELEASED.decay(epoch, eta) == pytest.approx(arrays[f"code_{kind}"][at], rel=1e-14)
                assert CRITERIA["bcm"].decay(epoch, eta) == pytest.approx(
                    arrays[f"paper_{kind}"][at], rel=1e-14
                )


@pytest.mark.parametrize("case", ["tie_delta0", "silent_layer", "q75_equals_min"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges(case, dtype):
    with np.load(GOLDEN / "edge.npz") as arrays:
        prefix = f"{'f32' if dtype == torch.float32 else 'f64'}/{case}/"
        edge = {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6

    def read(name):
        return torch.from_numpy(edge[name]).to(dtype)

    conv = Driven(read("conv_F0"), fully_connected=False)
    neurons = Driven(read("fc_F0"), fully_connected=True)
    synapses = Driven(torch.full((20, 96), 10.0, dtype=dtype), fully_connected=True)
    for at, epoch in enumerate(edge["epochs"].tolist()):
        conv.step(read("conv_imp"), epoch)
        neurons.step(read("fc_imp"), epoch)
        synapses.step(read("fc_syn"), epoch)
        for units, change, survival in (
            (conv, "n_delta_0", "reduce_0"),
            (neurons, "n_delta_9", "reduce_9"),
            (synapses, "ww_delta_9", "reduceww_9"),
        ):
            assert near(units.change, edge[change][at], tolerance)
            assert near(units.survival, edge[survival][at], tolerance)
        assert (conv.alive.numpy() == edge["mask_0"][at].astype(bool)).all()
        both = synapses.alive & neurons.alive[:, None]
        assert (both.numpy() == edge["mask_9"][at].astype(bool)).all()
