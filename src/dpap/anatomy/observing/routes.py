"""Where contributions to the loss are read: parameters, and the routes from them to the units that they read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpap.anatomy.layers import bias_of, is_depthwise, matrices_of, weight_of
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.observing.gather import FeatureSums
from dpap.anatomy.staining.codes import MIXED, NO_UNIT
from dpap.anatomy.wiring import Attachment, WeightLayer, Wiring


@dataclass(frozen=True)
class Key:
    """A module, and a parameter of it or what is summed from one; of several matrices, which."""

    module: str
    part: str
    matrix: int = 0

    @property
    def text(self) -> str:
        """It as one name."""
        return f"{self.matrix}|{self.part}|{self.module}"

    @classmethod
    def of(cls, text: str) -> "Key":
        """What has this as `text`."""
        matrix, part, module = text.split("|", 2)
        return cls(module, part, int(matrix))


WEIGHT, BIAS, READ = "weight of each unit", "bias of each unit", "weight by feature"
"""Parts of weight layers; those of normalisations are called as their parameters."""


@dataclass(frozen=True)
class Route:
    """What is found under a key, summed over the features that each unit feeds there."""

    key: Key
    sums: FeatureSums


def listed(wiring: Wiring) -> Iterator[tuple[Key, nn.Parameter]]:
    """Every parameter of which the contribution is of use, with what it says."""
    for name, layer in wiring.layers.items():
        for number, (matrix, _) in enumerate(matrices_of(layer.module)):
            weight, bias = weight_of(matrix), bias_of(matrix)
            if isinstance(weight, nn.Parameter):
                yield Key(name, WEIGHT, number), weight
            if isinstance(bias, nn.Parameter):
                yield Key(name, BIAS, number), bias
    for name, attachment in wiring.attachments.items():
        for part in affine(attachment):
            yield Key(name, part), getattr(attachment.module, part)


def routes_of(wiring: Wiring, layer: WeightLayer, learns: Callable[[Tensor], bool]) -> Iterator[Route]:
    """Where the contributions of a layer's units are summed from: parameters that learn, so with gradients of now."""
    readers = [
        reader
        for reader in wiring.layers.values()
        if layer.name in reader.feeds and bool((reader.feeds[layer.name] != NO_UNIT).any())
    ]
    if readers and all(_readable(reader, layer.name, learns) for reader in readers):
        for reader in readers:
            for number, (_, features) in enumerate(matrices_of(reader.module)):
                fed = reader.feeds[layer.name][features]
                if bool((fed >= 0).any()):
                    yield Route(Key(reader.name, READ, number), FeatureSums(fed, layer.units))
        return
    norms = [
        attachment
        for attachment in wiring.attachments.values()
        if affine(attachment)
        and all(learns(getattr(attachment.module, part)) for part in affine(attachment))
        and layer.name in attachment.feeds
        and bool((attachment.feeds[layer.name] >= 0).any())
    ]
    for norm in norms:
        sums = FeatureSums(norm.feeds[layer.name], layer.units)
        for part in affine(norm):
            yield Route(Key(norm.name, part), sums)
    frozen = (isinstance(weight, nn.Parameter) and not learns(weight) for weight in layer.tensors())
    if norms or any(frozen):
        return
    sums = FeatureSums(torch.arange(layer.units), layer.units)
    for number, (matrix, _) in enumerate(matrices_of(layer.module)):
        yield Route(Key(layer.name, WEIGHT, number), sums)
        if bias_of(matrix) is not None:
            yield Route(Key(layer.name, BIAS, number), sums)


def _readable(reader: WeightLayer, source: str, learns: Callable[[Tensor], bool]) -> bool:
    """Whether the weights of a reader have gradients of their own, feature by feature of the source, and nothing else
    of it reads that.
    """
    own = all(isinstance(weight, nn.Parameter) and learns(weight) for weight in reader.tensors())
    mixed = bool((reader.feeds[source] == MIXED).any())
    alone = all(belonging.feature is None for belonging in reader.further.values())
    return own and alone and not (reader.fixed or mixed)


def affine(attachment: Attachment) -> tuple[str, ...]:
    """Weight and bias of a normalisation, one value per feature each; nothing of other modules."""
    module = attachment.module
    if is_depthwise(module) or neuron_kind(module) is not None:
        return ()
    parts = ("weight", "bias")
    own = all(isinstance(module._parameters.get(part), nn.Parameter) for part in parts)
    return parts if own and all(part in attachment.tensors for part in parts) else ()
