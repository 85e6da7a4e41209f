"""Inputs of any type: tokens, several tensors, nested ones, complex values, none at all, ragged and empty batches."""

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.optim import AdamW

import dpap
from dpap.anatomy.pytrees import all_tensors, float_tensors, map_floats, map_tensors
from dpap.pruning.arguments import as_inputs

WIDTH, HIDDEN, WORDS = 8, 12, 11


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Attention(nn.Module):
    """Attention of two heads; with relative biases as T5 has them, or rotated as in Llama, or causal."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        if kind == "t5":
            self.relative = nn.Embedding(9, 2)
        self.register_buffer("frequencies", 0.1 ** (torch.arange(2) / 2), persistent=False)

    def forward(self, x: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        source = x if source is None else source
        q, k, v = (
            layer(part).unflatten(-1, (2, -1)).transpose(1, 2)
            for layer, part in zip((self.q, self.k, self.v), (x, source, source), strict=True)
        )
        if self.kind == "llama":
            q, k = self._rotated(q), self._rotated(k)
        scores = q @ k.transpose(-1, -2) / 2
        if self.kind == "t5":
            apart = torch.arange(k.shape[2])[None] - torch.arange(q.shape[2])[:, None]
            scores = scores + self.relative(apart.clamp(-4, 4) + 4).permute(2, 0, 1)
        if self.kind in ("gpt", "llama"):
            scores = scores + torch.full((q.shape[2], k.shape[2]), -1e9).triu(1)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -1e9)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))

    def _rotated(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[2])[:, None] * self.frequencies
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Block(nn.Module):
    """Attention and an MLP on a stream; Llama's and T5's MLP is gated."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        norm: Callable[[], nn.Module] = RMSNorm if kind in ("llama", "t5") else lambda: nn.LayerNorm(WIDTH)
        self.kind, self.norm1, self.norm2 = kind, norm(), norm()
        self.attention = (
            nn.MultiheadAttention(WIDTH, 2, batch_first=True) if kind == "vit" else Attention(kind)
        )
        bias = kind not in ("llama", "t5")
        self.up, self.down = nn.Linear(WIDTH, HIDDEN, bias=bias), nn.Linear(HIDDEN, WIDTH, bias=bias)
        self.gate = None if bias else nn.Linear(WIDTH, HIDDEN, bias=False)
        self.act = nn.SiLU() if kind == "llama" else nn.GELU()

    def forward(self, x: Tensor, mask: Tensor | None = None, source: Tensor | None = None) -> Tensor:
        post = self.kind == "bert"
        seen = x if post else self.norm1(x)
        if isinstance(self.attention, nn.MultiheadAttention):
            x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        else:
            x = x + self.attention(seen, source, mask)
        seen = x = self.norm1(x) if post else x
        if not post:
            seen = self.norm2(x)
        hidden = self.act(self.up(seen)) if self.gate is None else self.act(self.gate(seen)) * self.up(seen)
        x = x + self.down(hidden)
        return self.norm2(x) if post else x


class Words(nn.Module):
    """A transformer on tokens: BERT, GPT, Llama, with tied embeddings; T5 with an encoder and a decoder."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed, self.place = nn.Embedding(WORDS, WIDTH), nn.Embedding(16, WIDTH)
        self.blocks = nn.ModuleList([Block(kind)])
        self.crossed = Block(kind) if kind == "t5" else None
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embed.weight

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, decoder_input_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        x = self.embed(input_ids)
        if self.kind in ("bert", "gpt"):
            x = x + self.place(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x, None if attention_mask is None else attention_mask.bool())
        if self.crossed is not None and decoder_input_ids is not None:
            x = self.crossed(self.embed(decoder_input_ids), source=x)
        return {"logits": self.head(x)}


class Patches(nn.Module):
    """A ViT: patches, a class token and places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.token, self.place = (
            nn.Parameter(torch.randn(1, 1, WIDTH)),
            nn.Parameter(torch.randn(1, 5, WIDTH)),
        )
        self.blocks = nn.ModuleList([Block("vit")])
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.embed(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def _train(model: nn.Module, given: Any, config: dpap.PruningConfig, steps: int = 4) -> dpap.Pruner:
    """A pruner of a network that was trained for an epoch, and has killed."""
    optimizer = AdamW(model.parameters(), 1e-2)
    pruner = dpap.Pruner(model, given, optimizer, config)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        output = (
            model(**given)
            if isinstance(given, dict)
            else model(*(given if isinstance(given, tuple) else (given,)))
        )
        loss = torch.stack([one.abs().square().mean() for one in float_tensors(output)]).sum()
        loss.backward()
        optimizer.step()
    assert pruner.step().sparsity > 0
    return pruner


CONFIGS = {
    "taylor": dpap.PruningConfig(target=0.3, start_epoch=0, end_epoch=1, synapses=False),
    "bcm": dpap.PruningConfig.paper(target=0.3, start_epoch=0, end_epoch=1, synapses=False, observe_every=1),
}


@pytest.mark.parametrize(
    ("kind", "criterion"),
    [("bert", "taylor"), ("gpt", "bcm"), ("llama", "taylor"), ("t5", "taylor"), ("vit", "bcm")],
)
def test_transformers_prune_their_mlps(kind: str, criterion: str) -> None:
    tokens = torch.randint(WORDS, (3, 6))
    model, given = (
        (Patches(), {"pixel_values": torch.randn(3, 3, 8, 8)})
        if kind == "vit"
        else (Words(kind), {"input_ids": tokens})
    )
    if kind == "bert":
        given["attention_mask"] = torch.ones(3, 6, dtype=torch.int64)
    if kind == "t5":
        given["decoder_input_ids"] = torch.randint(WORDS, (3, 4))
    pruner = _train(model, given, CONFIGS[criterion])
    wiring = pruner.wiring
    hidden = [name for name in wiring.layers if name.endswith(".up")]
    assert len(hidden) == 1 + (kind == "t5")
    assert {wiring.layers[name].prunability for name in hidden} == {"prunable"}
    before = model.eval()(**given)
    pruner.compact()
    after = model(**given)
    for one, other in zip(float_tensors(before), float_tensors(after), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert any(model.get_submodule(name).out_features < HIDDEN for name in hidden)
    shorter = {key: value[:2, :4] if value.ndim == 2 else value[:2] for key, value in given.items()}
    model(**shorter)


class Scaled(nn.Module):
    """Two layers on whatever `features` makes of the inputs."""

    def __init__(self, features: Callable[..., Tensor], width: int = 6) -> None:
        super().__init__()
        self.features = features
        self.first, self.last = nn.Linear(width, 10), nn.Linear(10, 3)

    def forward(self, *given: Any, **options: Any) -> Tensor:
        return self.last(F.relu(self.first(self.features(*given, **options))))


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


@dataclass(frozen=True)
class Sample:
    image: Tensor
    label: int = 3


class Batch(UserDict[str, Tensor]):
    """As transformers' BatchEncoding: items are attributes too."""

    def __getattr__(self, name: str) -> Tensor:
        if name == "data" or name not in self.data:
            raise AttributeError(name)
        return self.data[name]


def _of_spectrum(x: Tensor) -> Tensor:
    return torch.fft.ifft(torch.fft.fft(x) * torch.complex(torch.ones(()), torch.ones(()))).abs()


KINDS_OF_INPUT: dict[str, tuple[Callable[..., Tensor], Any]] = {
    "one-hot tokens": (lambda tokens: F.one_hot(tokens, 6).float(), torch.randint(6, (4, 5))),
    "truth values": (lambda bits: bits.float(), torch.rand(4, 6) < 0.5),
    "several": (lambda x, mask, scale: x * mask * scale, (torch.rand(4, 6), torch.rand(4, 6) < 0.9, 2.0)),
    "nested": (
        lambda batch: batch["images"][0] + batch["more"].left,
        ({"images": [torch.rand(4, 6)], "more": Pair(torch.rand(4, 6), torch.arange(4))},),
    ),
    "dataclass": (lambda sample: sample.image * sample.label, (Sample(torch.rand(4, 6)),)),
    "object": (
        lambda batch: batch.x + batch.inner["y"],
        (SimpleNamespace(x=torch.rand(4, 6), inner={"y": torch.ones(6)}),),
    ),
    "named tuple": (lambda pair: pair.left + pair.right, (Pair(torch.rand(4, 6), torch.rand(4, 6)),)),
    "mapping with attributes": (lambda batch: batch.x, (Batch(x=torch.rand(4, 6)),)),
    "complex": (lambda z: torch.cat([z.real, z.imag], -1), torch.randn(4, 3, dtype=torch.complex64)),
    "spectrum": (_of_spectrum, torch.rand(4, 6)),
    "ragged": (lambda parts: torch.cat(parts), ([torch.rand(2, 6), torch.rand(3, 6)],)),
    "packed": (lambda packed: packed.data, (pack_sequence([torch.rand(3, 6), torch.rand(2, 6)]),)),
    "flags": (lambda *, noisy: torch.rand(4, 6) if noisy else torch.ones(4, 6), {"noisy": True}),
    "none": (lambda: torch.linspace(0, 1, 24).view(4, 6), ()),
    "scalar": (lambda scale: torch.ones(4, 6) * scale, torch.tensor(2.0)),
}


@pytest.mark.parametrize("criterion", CONFIGS)
@pytest.mark.parametrize("kind", KINDS_OF_INPUT)
def test_inputs_of_any_type_are_observed(kind: str, criterion: str) -> None:
    features, given = KINDS_OF_INPUT[kind]
    model = Scaled(features)
    pruner = _train(model, given, CONFIGS[criterion])
    assert pruner.wiring.layers["first"].prunability == "prunable"
    pruner.compact()
    assert model.first.out_features < 10


class Spectral(nn.Module):
    """A Fourier layer: complex weights of its own, and complex weight layers."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(6, 4, dtype=torch.complex64))
        self.first, self.last = (
            nn.Linear(6, 10, dtype=torch.complex64),
            nn.Linear(10, 3, dtype=torch.complex64),
        )

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x)
        hidden = self.first(torch.einsum("fk,bk->bf", self.mix, spectrum))
        hidden = torch.complex(F.relu(hidden.real), F.relu(hidden.imag))
        return self.last(hidden).abs()


@pytest.mark.parametrize("criterion", CONFIGS)
def test_units_of_complex_values_die_and_leave(criterion: str) -> None:
    model, x = Spectral(), torch.rand(4, 6)
    pruner = _train(model, x, CONFIGS[criterion])
    before = model(x)
    pruner.compact()
    assert model.first.out_features < 10 and model.first.weight.is_complex()
    assert torch.allclose(model(x), before, atol=1e-5)


@pytest.mark.parametrize("criterion", CONFIGS)
def test_empty_batches_among_others_are_passed_over(criterion: str) -> None:
    model, x = Scaled(lambda x: x), torch.rand(4, 6)
    optimizer = AdamW(model.parameters())
    pruner = dpap.Pruner(model, x, optimizer, CONFIGS[criterion])
    for batch in (x[:0], x, x[:0]):
        optimizer.zero_grad()
        model(batch).square().sum().backward()
        optimizer.step()
    assert pruner.step().sparsity > 0
    assert all(
        torch.isfinite(one).all() for one in all_tensors(pruner.state_dict()) if one.is_floating_point()
    )
    with pytest.raises(ValueError, match="no sample"):
        dpap.find_wiring(Scaled(lambda x: x), (x[:0],))


def test_what_holds_tensors_keeps_its_class() -> None:
    packed = pack_sequence([torch.rand(3, 2), torch.rand(2, 2)])
    given = {
        "sample": Sample(torch.ones(2)),
        "object": SimpleNamespace(x=torch.ones(1), name="a"),
        "batch": Batch(x=torch.ones(1)),
        "packed": packed,
    }
    changed = map_floats(given, lambda tensor: tensor + 1)
    assert isinstance(changed["packed"], PackedSequence) and torch.equal(
        changed["packed"].data, packed.data + 1
    )
    assert changed["sample"] is not given["sample"] and changed["sample"].image.tolist() == [2, 2]
    assert changed["object"].x.tolist() == [2] and changed["object"].name == "a"
    assert isinstance(changed["batch"], Batch) and changed["batch"].x.tolist() == [2]
    assert given["sample"].image.tolist() == [1, 1] and given["object"].x.tolist() == [1]
    assert given["batch"].x.tolist() == [1]


@pytest.mark.parametrize(
    "given", [Batch(x=torch.rand(4, 6)), Sample(torch.rand(4, 6)), Pair(torch.rand(1), torch.rand(1))]
)
@pytest.mark.usefixtures("unchecked")
def test_what_holds_tensors_is_one_argument_and_a_mapping_is_keywords(given: Any) -> None:
    taken = as_inputs(given, nn.Linear(2, 2))
    assert taken == dict(given) if isinstance(given, Batch) else taken[0] is given and len(taken) == 1
    with pytest.raises(TypeError, match="got str"):
        as_inputs("text", nn.Linear(2, 2))


def test_one_tensor_in_two_places_stays_one() -> None:
    tensor = torch.ones(2)
    changed = map_tensors({"a": tensor, "b": [tensor]}, Tensor.clone)
    assert changed["a"] is changed["b"][0] and changed["a"] is not tensor
    circle: dict[str, Any] = {"x": tensor}
    circle["self"] = circle
    assert [one is tensor for one in all_tensors(circle)] == [True]
