"""Units of LSTM, GRU and RNN die and leave, and what remains computes and learns what it did with them masked."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

import dpap
from dpap.anatomy import Wiring
from dpap.anatomy.observing.contributions import ContributionRecorder
from dpap.anatomy.recurrent import is_recurrent
from dpap.metrics import macs
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead
from dpap.surgery.slicing import keep_only
from dpap.surgery.trial import try_removal
from support.recurrent import CellNetwork, RecurrentNetwork
from support.recurrent import masked as reference

TIMES, SAMPLES = 4, 3


def _inputs(seed: int) -> Tensor:
    return torch.randn(TIMES, SAMPLES, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _dead_at_random(wiring: Wiring, seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    for alive in masks.units.values():
        alive &= torch.rand(alive.shape, generator=generator) >= 0.5
        alive[int(torch.randint(len(alive), (), generator=generator))] = True
    return masks


OPTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("LSTM", "all", {}),
    ("LSTM", "last", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", "all", {"num_layers": 2, "bias": False, "batch_first": True}),
    ("LSTM", "all", {"proj_size": 6}),
    ("LSTM", "last", {"num_layers": 2, "bidirectional": True, "proj_size": 3, "batch_first": True}),
    ("GRU", "last", {}),
    ("GRU", "all", {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    ("GRU", "all", {"num_layers": 3, "bias": False}),
    ("RNN", "all", {"num_layers": 2}),
    ("RNN", "last", {"bidirectional": True, "nonlinearity": "relu", "batch_first": True}),
]


def _check_against_masked(model: Any, seed: int) -> None:
    """Outputs and gradients are those of the dense network with its units masked at every timestep."""
    wiring = dpap.find_wiring(model, (_inputs(0),))
    try_removal(model, wiring, (_inputs(0),))
    assert {layer.prunability for name, layer in wiring.layers.items() if name != "head"} == {"prunable"}
    masks = _dead_at_random(wiring, seed)
    useful = masks.useful(wiring)
    dense = copy.deepcopy(model)
    dense_wiring = dpap.find_wiring(dense, (_inputs(0),))
    dense.masks = {name: useful[name].double() for name in masks.units}
    Silence(model, wiring, ()).impose(masks)
    kept, _ = remove_dead(model, wiring, masks, (), (_inputs(0),))
    outputs, gradients = [], []
    for network in (dense, model):
        x = _inputs(1).requires_grad_()
        outputs.append(network(x))
        outputs[-1].square().sum().backward()
        gradients.append([x.grad])
    keep_only(dense, dense_wiring, kept, ())
    assert dense.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=1e-13)
    for (name, masked), (_, own) in zip(dense.named_parameters(), model.named_parameters(), strict=True):
        if name.startswith("head"):
            # a dead unit's column of the last layer holds its gradient, for its weight was no zero when it was masked
            assert own.shape == masked.shape
        gradients[0].append(masked.grad)
        gradients[1].append(own.grad)
    for masked, own in zip(*gradients, strict=True):
        torch.testing.assert_close(own, masked, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "reads", "options"), OPTIONS)
def test_modules_compute_what_they_do_with_their_units_masked(
    kind: str, reads: str, options: dict[str, Any]
) -> None:
    _check_against_masked(RecurrentNetwork(kind, reads, **options).double(), 0)


@pytest.mark.parametrize(("bias", "state"), [(True, "none"), (False, "zeros")])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells_compute_what_they_do_with_their_units_masked(kind: str, bias: bool, state: str) -> None:
    _check_against_masked(CellNetwork(kind, state, bias).double(), 3)


NETWORKS = {
    "lstm": lambda: RecurrentNetwork("LSTM", num_layers=2, bidirectional=True),
    "projected": lambda: RecurrentNetwork("LSTM", num_layers=2, proj_size=4, batch_first=True),
    "gru": lambda: RecurrentNetwork("GRU", "last", num_layers=2, dropout=0.0),
    "rnn": lambda: RecurrentNetwork("RNN", bidirectional=True, nonlinearity="relu"),
    "packed": lambda: RecurrentNetwork("LSTM", "all", True, bidirectional=True),
    "packed batch first": lambda: RecurrentNetwork("GRU", "last", True, batch_first=True),
    "states": lambda: RecurrentNetwork("LSTM", "states", True, num_layers=2),
    "projected states": lambda: RecurrentNetwork("LSTM", "states", proj_size=3),
    "cell": lambda: CellNetwork("LSTMCell"),
}


def _build(name: str) -> Any:
    torch.manual_seed(1)
    return NETWORKS[name]().double()


def _trained(model: nn.Module, criterion: str = "taylor", **options: Any) -> tuple[dpap.Pruner, AdamW]:
    """After two epochs in which half of the weights die."""
    optimizer = AdamW(model.parameters(), lr=0.01)
    config = dpap.PruningConfig(
        target=0.6, end_epoch=2, start_epoch=0, criterion=criterion, observe_every=1, **options
    )
    pruner = dpap.Pruner(model, _inputs(0), optimizer, config)
    for epoch in range(2):
        for batch in range(2):
            _learn(model, optimizer, 2 * epoch + batch)
        pruner.step()
    return pruner, optimizer


def _learn(model: nn.Module, optimizer: AdamW, seed: int) -> Tensor:
    optimizer.zero_grad()
    output = model(_inputs(seed))
    output.square().sum().backward()
    optimizer.step()
    return output


@pytest.mark.parametrize("name", NETWORKS)
def test_a_compact_network_learns_on_as_the_silenced_one_does(name: str) -> None:
    model = _build(name)
    pruner, optimizer = _trained(model)
    assert pruner.sparsity == pytest.approx(0.6, abs=0.1)
    twin = _build(name)
    silent, silent_optimizer = _trained(twin)
    report = pruner.compact()
    assert report.parameters_after < report.parameters_before
    for seed in range(3, 6):
        one, other = (_learn(*each, seed) for each in ((model, optimizer), (twin, silent_optimizer)))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    silent.compact()
    assert [tuple(each.shape) for each in model.parameters()] == [
        tuple(each.shape) for each in twin.parameters()
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_of_a_module_follow_and_are_stored(name: str, tmp_path: Path) -> None:
    model, x = _build(name), _inputs(7)
    pruner, _ = _trained(model)
    pruner.compact()
    (module,) = (module for module in model.modules() if is_recurrent(module))
    suffix = "" if name == "cell" else "_l0"
    assert module.input_size == getattr(module, f"weight_ih{suffix}").shape[1] == model.first.out_features
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[type(module).__name__.removesuffix("Cell")]
    assert module.hidden_size == len(getattr(module, f"weight_ih{suffix}")) // gates < 7
    if getattr(module, "proj_size", 0):
        assert module.proj_size == len(module.weight_hr_l0) < module.hidden_size
    fresh = _build(name)
    assert fresh.state_dict().keys() == model.state_dict().keys()
    loaded = dpap.load(dpap.save(model, tmp_path / "small.safetensors"), fresh)
    torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    assert repr(loaded) == repr(model)


def test_a_pruner_goes_on_from_a_state_of_a_compact_network() -> None:
    model = _build("lstm")
    pruner, _ = _trained(model)
    pruner.compact()
    fresh = _build("lstm")
    other = dpap.Pruner(fresh, _inputs(0), AdamW(fresh.parameters()), pruner.config)
    other.load_state_dict(pruner.state_dict())
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(_inputs(5)), model(_inputs(5)), rtol=0, atol=0)
    assert other.survival() == pruner.survival() and other.sparsity == pruner.sparsity


def test_a_copy_is_cut_alike() -> None:
    model = _build("gru")
    follower = copy.deepcopy(model)
    config = dpap.PruningConfig(target=0.5, end_epoch=1, start_epoch=0, criterion="magnitude")
    pruner = dpap.Pruner(model, _inputs(0), None, config, copies=follower)
    model(_inputs(0))
    pruner.step()
    before = follower(_inputs(1))
    pruner.compact()
    torch.testing.assert_close(follower(_inputs(1)), before, rtol=0, atol=1e-13)
    assert follower.rnn.hidden_size == model.rnn.hidden_size < 7


@pytest.mark.parametrize("target_of", ["weights", "parameters", "macs"])
@pytest.mark.parametrize("name", ["lstm", "projected", "gru", "cell"])
def test_costs_are_those_that_are_counted(name: str, target_of: Any) -> None:
    model, x = _build(name), _inputs(0)
    assert dpap.find_wiring(model, (x,)).macs() == macs(model, x)
    dense = {"macs": macs(model, x), "parameters": sum(each.numel() for each in model.parameters())}
    pruner, _ = _trained(model, target_of=target_of)
    achieved = pruner.achieved
    assert achieved == pytest.approx(0.6, abs=0.12)
    pruner.compact()
    left = {"macs": macs(model, x), "parameters": sum(each.numel() for each in model.parameters())}
    assert pruner.wiring.macs() == left["macs"]
    if target_of != "weights":
        assert achieved == pytest.approx(1 - left[target_of] / dense[target_of])


@pytest.mark.parametrize("name", ["lstm", "projected", "gru", "rnn"])
def test_contributions_are_the_derivatives_by_masks_of_the_units(name: str) -> None:
    model = _build(name)
    model.rnn.batch_first = False
    wiring, found = dpap.find_wiring(model, (_inputs(0),)), {}
    names = [layer for layer in wiring.layers if layer != "head"]
    recorder = ContributionRecorder(model, wiring, names, (), (), 1, found.update)
    model.train()
    model(_inputs(1)).square().sum().backward()
    recorder.end_step()
    recorder.remove()
    masked = copy.deepcopy(model)
    masked.masks = {
        layer: torch.ones(wiring.layers[layer].units, dtype=torch.float64).requires_grad_() for layer in names
    }
    masked(_inputs(1)).square().sum().backward()
    for layer in names:
        torch.testing.assert_close(found[layer].units, masked.masks[layer].grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["lstm", "projected", "gru", "rnn", "cell"])
def test_the_states_of_silent_units_are_zero(name: str) -> None:
    model, states = _build(name), []
    pruner, _ = _trained(model)
    module = next(module for module in model.modules() if is_recurrent(module))
    module.register_forward_hook(lambda module, args, output: states.append(output))
    model(_inputs(1))
    output, last = states[-1], states[-1][1] if name != "cell" else states[-1]
    c = last[1] if isinstance(last, tuple) else last
    dead = [
        torch.tensor([value is None for value in survival])
        for layer, survival in pruner.survival().items()
        if layer not in ("first",) and "projection" not in layer
    ]
    assert any(bool(gone.any()) for gone in dead)
    for number, gone in enumerate(dead):
        one = c if name == "cell" else c[number]
        assert bool((one[:, gone] == 0).all()) and bool((one[:, ~gone] != 0).any())
    if name != "cell":
        assert not bool(output[0].isnan().any())


def test_units_that_are_the_output_stay_and_keep_the_others_of_their_module() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 6, num_layers=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    model = Alone().double()
    wiring = dpap.find_wiring(model, (_inputs(0),))
    assert (wiring.layers["rnn.l0"].prunability, wiring.layers["rnn.l0"].reason) == (
        "silenced",
        "it has as many units as rnn.l1, of which none leave",
    )
    assert wiring.layers["rnn.l1"].reason == "its units are the network's output"
    masks = _dead_at_random(wiring, 0)
    assert set(masks.units) == {"rnn.l0"}
    masked, x = copy.deepcopy(model), _inputs(1)
    Silence(model, wiring, ()).impose(masks)
    alive = {"rnn.l0": masks.units["rnn.l0"].double(), "rnn.l1": torch.ones(6, dtype=torch.float64)}
    torch.testing.assert_close(model(x), reference(masked.rnn, x, alive), rtol=0, atol=1e-14)


class Given(nn.Module):
    """A module that is given its first state."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.rnn, self.head = nn.Linear(4, 5), nn.LSTM(5, 6), nn.Linear(6, 2)
        self.start = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x: Tensor, state: Tensor | None = None) -> Tensor:
        x = self.first(x).relu()
        zeros = x.new_zeros(1, x.shape[1], 6 if self.how == "fixed" else self.rnn.hidden_size)
        given = {
            "zeros": zeros,
            "fixed": zeros,
            "learned": self.start.expand(1, x.shape[1], 6),
            "cell state": zeros + 1,
            "input": state,
        }[self.how]
        return self.head(self.rnn(x, (zeros if self.how == "cell state" else given, given))[0])


@pytest.mark.parametrize(
    ("how", "prunability", "reason"),
    [
        ("zeros", "prunable", ""),
        ("fixed", "silenced", "a trial removal failed: "),
        ("learned", "silenced", "a trial removal failed: "),  # its values die with the units
        ("cell state", "whole", "the state that rnn.l0 is given is not zero, so a silent unit would not be"),
        ("input", "silenced", "its units are joined with those of the network's input, which stay"),
    ],
)
def test_a_state_that_is_given_is_zero_or_the_units_stay(how: str, prunability: str, reason: str) -> None:
    model = Given(how).double()
    inputs = (_inputs(0), torch.zeros(1, SAMPLES, 6).double()) if how == "input" else (_inputs(0),)
    wiring = dpap.find_wiring(model, inputs)
    try_removal(model, wiring, inputs)
    layer = wiring.layers["rnn.l0"]
    assert (
        layer.prunability == prunability
        and layer.reason.startswith(reason)
        and bool(reason) == bool(layer.reason)
    )
    assert wiring.layers["first"].prunability == "prunable"


class Translator(nn.Module):
    """An encoder whose state starts a decoder, module or cell."""

    def __init__(self, cell: bool) -> None:
        super().__init__()
        self.encoder = nn.LSTM(4, 6)
        self.decoder = nn.LSTMCell(4, 6) if cell else nn.LSTM(4, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        if isinstance(self.decoder, nn.LSTM):
            return self.head(self.decoder(x, state)[0])
        outputs, state = [], tuple(part[0] for part in state)
        for now in x:
            state = self.decoder(now, state)
            outputs.append(self.head(state[0]))
        return torch.stack(outputs)


@pytest.mark.parametrize("cell", [False, True])
def test_units_of_an_encoder_leave_with_those_of_the_decoder_that_it_starts(cell: bool) -> None:
    model = Translator(cell).double()
    wiring = dpap.find_wiring(model, (_inputs(0),))
    try_removal(model, wiring, (_inputs(0),))
    decoder = "decoder" if cell else "decoder.l0"
    assert [wiring.layers[name].prunability for name in ("encoder.l0", decoder)] == ["prunable"] * 2
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    masks.units["encoder.l0"][[0, 2, 3]] = False
    masks.units[decoder][[2, 3, 4]] = False
    Silence(model, wiring, ()).impose(masks)
    before = model(_inputs(1))
    remove_dead(model, wiring, masks, (), (_inputs(0),))
    assert model.encoder.hidden_size == model.decoder.hidden_size == 4
    torch.testing.assert_close(model(_inputs(1)), before, rtol=0, atol=1e-13)


class BatchFirst(nn.Module):
    """A classifier of sequences, each a row of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 5), nn.Linear(14, 3)
        self.rnn = nn.GRU(5, 7, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.first(x).relu())[0][:, -1])


@pytest.mark.parametrize("criterion", ["bcm", "hebb", "firing_rate", "magnitude", "random"])
def test_criteria_of_activity_judge_units_that_leave_the_module(criterion: str) -> None:
    model = BatchFirst().double()
    config = dpap.PruningConfig(target=0.6, end_epoch=1, start_epoch=0, criterion=criterion, observe_every=1)
    pruner = dpap.Pruner(model, _inputs(0), None, config)
    model(_inputs(1)).sum().backward()
    pruner.step()
    assert pruner.sparsity == pytest.approx(0.6, abs=0.1)
    for name in ("rnn.l0", "rnn.l0_reverse"):
        assert any(value is None for value in pruner.survival()[name])
    before = model(_inputs(2))
    pruner.compact()
    torch.testing.assert_close(model(_inputs(2)), before, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["lstm", "projected"])
def test_criteria_of_activity_are_refused_where_it_stays_inside(name: str) -> None:
    config = dpap.PruningConfig(target=0.5, end_epoch=2, criterion="bcm")
    with pytest.raises(ValueError, match=r"rnn\.l0.* stays inside a recurrent module.*taylor"):
        dpap.Pruner(_build(name), _inputs(0), None, config)
    config = dpap.PruningConfig(target=0.5, end_epoch=2, target_of="energy")
    with pytest.raises(
        ValueError, match=r"rnn\.l0 is a .*LSTM: set target_of to weights, parameters or macs"
    ):
        dpap.Pruner(_build(name), _inputs(0), None, config)


class Normed(nn.LSTM):
    """A module with a forward of its own."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x / x.norm())


def test_a_recurrent_module_with_its_own_forward_is_no_weight_layer() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rnn, self.head = nn.Linear(4, 5), Normed(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(self.first(x).relu())[0])

    wiring = dpap.find_wiring(Network().double(), (_inputs(0),))
    assert set(wiring.others) == {"rnn"} and "rnn (Normed)" in str(wiring)
    assert set(wiring.layers) == {"first", "head"}


def test_the_wiring_says_that_layers_and_directions_keep_equally_many() -> None:
    rows = dpap.find_wiring(_build("lstm"), (_inputs(0),)).table(200).splitlines()
    assert any(row.startswith("rnn.l1_reverse") and "as many in each of 4" in row for row in rows)


@pytest.mark.parametrize("name", ["lstm", "projected", "gru", "rnn"])
def test_over_the_network_equally_many_units_of_each_layer_and_direction_die(name: str) -> None:
    pruner, _ = _trained(_build(name))
    alive = {
        layer: sum(value is not None for value in survival) for layer, survival in pruner.survival().items()
    }
    for names in pruner.wiring.levels():
        assert len({alive[layer] for layer in names}) == 1
    pruner.compact()
    for names in pruner.wiring.levels():
        assert {pruner.wiring.layers[layer].units for layer in names} == {alive[names[0]]}


class Looped(nn.Module):
    """Two cells in a loop, with something between the first one's state and its next step."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.one, self.two, self.head = nn.LSTMCell(4, 6), nn.GRUCell(6, 6), nn.Linear(6, 4)
        # what never ran might read units, which then stay
        if how == "layer norm":
            self.layer_norm = nn.LayerNorm(6)
        if how == "batch norm":
            self.batch_norm = nn.BatchNorm1d(6)
            nn.init.normal_(self.batch_norm.running_mean)
        if how == "started":
            self.start = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        state, other, outputs = None, None, [x[0]]
        if self.how == "started":
            begin = self.start(x[0])
            state = begin, torch.zeros_like(begin)
        for now in x:
            h, c = state = self.one(outputs[-1].tanh() if self.how == "fed back" else now, state)
            if self.how == "layer norm":
                state = self.layer_norm(h), c
            if self.how == "batch norm":
                h, c = state = self.batch_norm(h), c
            other = self.two(h, other)
            if self.how == "added":
                other = other + h
            outputs.append(self.head(other))
        return torch.stack(outputs[1:])


@pytest.mark.parametrize(
    ("how", "prunability"),
    [
        ("fed back", "prunable"),
        ("layer norm", "whole"),
        ("batch norm", "prunable"),
        ("added", "prunable"),
        ("started", "prunable"),
    ],
)
def test_what_lies_between_the_states_of_cells_is_found(how: str, prunability: str) -> None:
    model = Looped(how).double()
    wiring = dpap.find_wiring(model, (_inputs(0),))
    try_removal(model, wiring, (_inputs(0),))
    assert wiring.layers["one"].prunability == prunability
    assert wiring.layers["two"].prunability == "prunable"
    for seed in range(3):
        small, small_wiring = copy.deepcopy((model, wiring))
        masks = _dead_at_random(small_wiring, seed)
        if how in ("added", "started"):
            masks.units["two"] = masks.units["one"].clone()
        if how == "started":
            masks.units["start"] = masks.units["one"].clone()
        Silence(small, small_wiring, ()).impose(masks)
        before = small.eval()(_inputs(1))
        remove_dead(small, small_wiring, masks, (), (_inputs(0),))
        torch.testing.assert_close(small(_inputs(1)), before, rtol=0, atol=1e-13)
        assert small.two.hidden_size == int(masks.units["two"].sum())
        if prunability == "prunable":
            assert small.one.hidden_size == int(masks.units["one"].sum())


def test_a_module_that_shares_or_computes_a_weight_stays_whole() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.GRU(4, 6), nn.GRU(4, 6), nn.Linear(6, 2)
            self.two.weight_hh_l0 = self.one.weight_hh_l0
            self.third = nn.GRU(4, 6)
            nn.utils.parametrizations.weight_norm(self.third, "weight_hh_l0")

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.one(x)[0] + self.two(x)[0] + self.third(x)[0])

    wiring = dpap.find_wiring(Pair().double(), (_inputs(0),))
    assert wiring.layers["one.l0"].reason == "it shares a parameter with two"
    assert wiring.layers["third.l0"].reason.startswith("its weight is computed from other parameters")
    assert {layer.prunability for layer in wiring.layers.values()} == {"whole"}
    assert not wiring.others
