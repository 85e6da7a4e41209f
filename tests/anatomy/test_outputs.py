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
    config = dpap.PruningConfig(target=0.5, start_epoch=0, end_epoch=1, synapses=False)
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
    wiring = dpap.find_wiring(Features(), (torch.rand(4, 6),), lambda out: (out["logits"], out["features"][0]))
    assert wiring.layers["stem"].reason == "its units are the network's output"
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
    with pytest.raises(TypeError, match="outputs expects a function .* got int"):
        as_outputs(0)
