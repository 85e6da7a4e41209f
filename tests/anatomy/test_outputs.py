"""Which outputs keep their width is the user's to say."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dpap
from dpap.pruning.arguments import as_outputs


class Features(nn.Module):
    """Returns features beside logits, and an auxiliary head's output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.hidden, self.head = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 3)
        self.aux = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        stem = torch.relu(self.stem(x))
        hidden = torch.relu(self.hidden(stem))
        return {"logits": self.head(hidden), "features": [stem, hidden], "aux": self.aux(stem)}


class Membranes(nn.Module):
    """One timestep of a spiking network whose membranes go in and come out, as snnTorch's loops have it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def step(self, current: Tensor, membrane: Tensor | None) -> tuple[Tensor, Tensor]:
        membrane = current if membrane is None else 0.9 * membrane + current
        spikes = torch.sigmoid(10 * (membrane - 1))
        spikes = spikes - spikes.detach() + (membrane > 1).float()
        return spikes, membrane * (1 - spikes.detach())

    def forward(
        self, x: Tensor, first: Tensor | None = None, second: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        one, first = self.step(self.fc1(x), first)
        two, second = self.step(self.fc2(one), second)
        return self.fc3(two), (first, second)


def _trained(model: nn.Module, example: Any, outputs: Any, inputs: Any) -> dpap.Pruner:
    optimizer = torch.optim.Adam(model.parameters())
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False, criterion="random")
    pruner = dpap.Pruner(model, example, optimizer, config, outputs=outputs)
    optimizer.zero_grad()
    outputs(model(*inputs)).square().sum().backward()
    optimizer.step()
    pruner.step()
    return pruner


def test_features_beside_logits_are_pruned() -> None:
    torch.manual_seed(0)
    model, x = Features(), torch.rand(4, 6)
    fixed = dpap.find_wiring(model, (x,))
    assert {fixed.layers[name].prunability for name in ("stem", "hidden")} == {"whole"}
    pruner = _trained(model, x, lambda returned: returned["logits"], (x,))
    assert {pruner.wiring.layers[name].prunability for name in ("stem", "hidden")} == {"prunable"}
    before = model(x)["logits"]
    pruner.compact()
    returned = model(x)
    assert torch.allclose(returned["logits"], before, atol=1e-6)
    assert returned["features"][0].shape[1] == model.stem.out_features < 16


def test_an_auxiliary_output_keeps_its_width_if_it_is_named() -> None:
    wiring = dpap.find_wiring(
        Features(), (torch.rand(4, 6),), lambda out: (out["logits"], out["features"][0])
    )
    assert (
        wiring.layers["stem"].reason
        == "its units reach the network's output, beside what they feed (aux, hidden)"
    )
    assert wiring.layers["hidden"].prunability == "prunable"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda returned: returned["logit"], r"here a dict with logits, features, aux, and failed: KeyError"),
        (lambda returned: None, "it gave a NoneType"),
    ],
)
def test_outputs_that_do_not_fit_are_an_error_in_words(outputs: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        dpap.Pruner(Features(), torch.rand(4, 6), outputs=outputs)


def test_outputs_must_be_a_function() -> None:
    with pytest.raises(TypeError, match=r"outputs expects a function .* got int"):
        as_outputs(0)


def _loop(model: nn.Module, x: Tensor, *states: Tensor) -> list[Tensor]:
    outputs = []
    for _ in range(5):
        out, states = model(x, *states)
        outputs.append(out)
    return outputs


@pytest.mark.parametrize("width", [16, 6], ids=["states of one width", "states as wide as the input"])
@pytest.mark.parametrize("given", [True, False], ids=["states given", "no states given"])
def test_membranes_that_go_in_and_out_follow_the_network(given: bool, width: int) -> None:
    torch.manual_seed(0)
    model, x = Membranes(), 3 * torch.rand(4, 6)
    model.fc1, model.fc2 = nn.Linear(6, width), nn.Linear(width, 16)
    # of the dense network in the middle of a presentation: also of units that die
    states = (2 * torch.rand(4, width), 2 * torch.rand(4, 16)) if given else ()
    pruner = _trained(model, (x, *states), lambda returned: returned[0], (x,))
    assert {pruner.wiring.layers[name].prunability for name in ("fc1", "fc2")} == {"prunable"}
    assert [state.carried.argument for state in pruner.wiring.states] == ([1, 2] if given else [])
    before = _loop(model, x)
    pruner.compact()
    assert model.fc1.out_features < width and model.fc2.out_features < 16
    for old, new in zip(before, _loop(model, x), strict=True):
        assert torch.allclose(old, new, atol=1e-5)
    fresh = (torch.zeros(4, model.fc1.out_features), torch.zeros(4, model.fc2.out_features))
    for old, new in zip(_loop(model, x, *fresh), _loop(model, x), strict=True):
        assert old.shape == new.shape
    assert pruner.compact().parameters_before == pruner.compact().parameters_after


def test_an_input_as_wide_as_a_returned_layer_is_no_state() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = torch.relu(self.one(x))
            return self.head(hidden), hidden

    wiring = dpap.find_wiring(Wide(), (torch.rand(4, 16),), lambda returned: returned[0])
    assert not wiring.states and wiring.layers["one"].prunability == "prunable"


def test_states_of_zeros_are_no_reason_to_refuse() -> None:
    torch.manual_seed(0)
    model, x = Membranes(), 3 * torch.rand(4, 6)
    states = (torch.zeros(4, 16), torch.zeros(4, 16))
    pruner = _trained(
        model, {"x": x, "first": states[0], "second": states[1]}, lambda returned: returned[0], (x,)
    )
    pruner.compact()
    assert model.fc1.out_features < 16
    assert model(x, torch.zeros(4, model.fc1.out_features))[0].shape == (4, 3)
