"""Find by staining which unit feeds which feature, whatever lies in between.

As neuroanatomists do it: a dye is injected and one looks where it arrives. Neurons that spike are made
transparent, weight layers emit NaN on the chosen units and finite numbers elsewhere, and everybody looks
where the NaN arrives: it passes normalisation, pooling, flattening, concatenation, additions, time loops and
any Python between, and nothing else makes it. Which unit a NaN comes from is told by a code: unit u is dyed in
the passes that its codeword names. All codewords hold the same number of passes, so the union of two is never
a codeword and a feature that several units reach is known as mixed. Layers that never meet share their passes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from math import comb
from typing import Any

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from dpap.anatomy.nested import Inputs, float_tensors, map_floats, run
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.projections import projection_kind, size_of

INPUT = "<input>"
"""Name under which the network's own input is dyed."""
NOBODY = -1
MIXED = -2

Reach = dict[int, Bool[Tensor, "_"]]
"""Axis of an activity, from the end -> which slices along it are dyed."""


@dataclass(frozen=True)
class Site:
    """A place where dye is looked for: a module, and which of its calls in one forward pass.

    Projections gather all their calls (call 0); neurons and other modules are told apart by call.
    """

    module: str
    call: int = 0


@dataclass
class Stained:
    """What the dye showed.

    Attributes:
        feeds: site -> source layer -> the source's unit that feeds each feature (`NOBODY`, or `MIXED`
            where several units of that source arrive in one feature).
        axis: site -> axis of its activity that counts features, from the end.
        reached: source layer -> sites that its dye reached at all, mapped or not.
        outputs: source layers whose dye reached the network's output.
        loud: projection -> features that are not zero although every projection emits zero.
        order: sites in the order of their calls.
        shapes: neuron or other site -> shape of its activity on the example input.
    """

    feeds: dict[Site, dict[str, Int64[Tensor, "_"]]]
    axis: dict[Site, int]
    reached: dict[str, set[Site]]
    outputs: set[str]
    loud: dict[str, Bool[Tensor, "_"]]
    order: list[Site]
    shapes: dict[Site, tuple[int, ...]]


@dataclass
class _Pass:
    """What one forward pass emits, and what was seen in it."""

    emit: Callable[[str, int], Bool[Tensor, "_"] | None]
    fill: float = 1.0
    seen: dict[Site, Reach] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    silent: bool = False
    loud: dict[str, Tensor] = field(default_factory=dict)


def _codewords(units: int) -> Bool[Tensor, "unit bit"]:
    """One codeword a unit, all of the same weight, as short as possible."""
    bits = 1
    while comb(bits, bits // 2) < units:
        bits += 1
    words = torch.zeros(units, bits, dtype=torch.bool)
    for unit, word in zip(range(units), combinations(range(bits), bits // 2), strict=False):
        words[unit, list(word)] = True
    if bits == 1:
        words[:] = True
    return words


def _profiles(dyed: Tensor, axes: set[int] | None) -> Reach:
    """Axes along which the dye lies in whole slices, and which slices those are."""
    if not dyed.any():
        return {}
    found: Reach = {}
    for axis in range(-dyed.ndim, 0):
        if axes is not None and axis not in axes:
            continue
        others = [other for other in range(-dyed.ndim, 0) if other != axis]
        profile = dyed.any(dim=others) if others else dyed
        if int(dyed.sum()) == int(profile.sum()) * (dyed.numel() // dyed.shape[axis]):
            found[axis] = profile.cpu()
    return found


class _Stainer:
    """Runs the network with dye in place of its weights."""

    def __init__(self, model: nn.Module, example_inputs: Inputs) -> None:
        self.model = model
        self.example_inputs = example_inputs
        self.projections: dict[str, nn.Module] = {}
        self.passers: dict[str, nn.Module] = {}
        self.axes: dict[Site, set[int]] = {}
        self.order: dict[Site, None] = {}
        self.shapes: dict[Site, tuple[int, ...]] = {}
        self.output_shapes: dict[tuple[str, tuple[int, ...]], tuple[torch.Size, torch.dtype]] = {}
        self.now = _Pass(emit=lambda name, units: None)
        for name, module in model.named_modules():
            if projection_kind(module) is not None:
                self.projections[name] = module
            elif neuron_kind(module) is not None or _holds_state(module):
                self.passers[name] = module

    @contextmanager
    def stained(self) -> Iterator[None]:
        """Every projection emits dye, every spiking neuron is transparent, everybody looks."""
        changed: list[nn.Module] = []
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            for name, module in self.projections.items():
                self._replace(module, self._projection_forward(name, module, module.forward), changed)
            for name, module in self.passers.items():
                self._replace(module, self._passer_forward(name, module, module.forward), changed)
            with torch.no_grad():
                yield
        finally:
            for module in changed:
                del module.__dict__["forward"]
            for module in training:
                module.training = True

    @staticmethod
    def _replace(module: nn.Module, forward: Callable[..., Any], changed: list[nn.Module]) -> None:
        if "forward" in module.__dict__:
            raise TypeError(
                f"{type(module).__name__} has a forward of its own on the instance (a wrapper such as a compiled "
                "module?); give the unwrapped network to Pruner and wrap it afterwards"
            )
        module.__dict__["forward"] = forward
        changed.append(module)

    def _projection_forward(
        self, name: str, module: nn.Module, original: Callable[..., Tensor]
    ) -> Callable[..., Tensor]:
        kind = projection_kind(module)
        if kind is None:
            raise TypeError(f"{name} is no projection")
        axis, (units, _) = kind.activity_axis, size_of(module)

        def forward(activity: Tensor, *rest: Any, **options: Any) -> Tensor:
            known = self.output_shapes.get((name, tuple(activity.shape)))
            if known is None:
                output = original(torch.nan_to_num(activity), *rest, **options)
                known = self.output_shapes[name, tuple(activity.shape)] = (output.shape, output.dtype)
            site = Site(name)
            self._note_order(site)
            others = [other for other in range(-activity.ndim, 0) if other != axis]
            if self.now.silent:
                loud = (activity != 0).any(dim=others) if others else activity != 0
                self.now.loud[name] = self.now.loud.get(name, torch.zeros_like(loud)) | loud
            else:
                dyed = torch.isnan(activity)
                if dyed.any():
                    profile = (dyed.any(dim=others) if others else dyed).cpu()
                    before = self.now.seen.setdefault(site, {}).get(axis)
                    self.now.seen[site][axis] = profile if before is None else before | profile
            output = torch.full(known[0], self.now.fill, dtype=known[1], device=activity.device)
            dye = self.now.emit(name, units)
            if dye is not None:
                shape = [1] * output.ndim
                shape[axis] = units
                output.masked_fill_(dye.to(output.device).view(shape), torch.nan)
            return output

        return forward

    def _passer_forward(
        self, name: str, module: nn.Module, original: Callable[..., Any]
    ) -> Callable[..., Any]:
        kind = neuron_kind(module)
        transparent = kind is not None and kind.spikes

        def forward(*inputs: Any, **options: Any) -> Any:
            activity = next((value for value in inputs if isinstance(value, Tensor)), None)
            if activity is None:
                return original(*inputs, **options)
            site = Site(name, self.now.calls.get(name, 0))
            self.now.calls[name] = site.call + 1
            self._note_order(site)
            self.shapes[site] = tuple(activity.shape)
            if self.now.silent:
                return torch.zeros_like(activity) if kind is None else original(*inputs, **options)
            if activity.is_floating_point():
                self._look(site, torch.isnan(activity))
            return activity if transparent else original(*inputs, **options)

        return forward

    def _look(self, site: Site, dyed: Tensor) -> None:
        profiles = _profiles(dyed, self.axes.get(site))
        if dyed.any():
            self.now.seen[site] = profiles
            if not dyed.all():
                self.axes[site] = set(profiles)

    def _note_order(self, site: Site) -> None:
        self.order.setdefault(site)

    def run(self, now: _Pass, inputs: Inputs | None = None) -> tuple[dict[Site, Reach], bool]:
        """One forward pass; where the dye was seen, and whether it reached the output."""
        self.now = now
        output = run(self.model, self.example_inputs if inputs is None else inputs)
        return now.seen, any(bool(torch.isnan(tensor).any()) for tensor in float_tensors(output))


def _holds_state(module: nn.Module) -> bool:
    """Whether a leaf module keeps parameters or buffers of its own, which may belong to single units."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return bool(own) and not any(True for _ in module.children())


def _meet(one: dict[Site, Reach], other: dict[Site, Reach]) -> bool:
    """Whether the dyes of two sources may share a feature at some site."""
    for site in one.keys() & other.keys():
        axes = one[site].keys() & other[site].keys()
        if not axes:
            return True
        for axis in axes:
            first, second = one[site][axis], other[site][axis]
            if first.shape != second.shape or bool((first & second).any()):
                return True
    return False


def stain(model: nn.Module, example_inputs: Inputs) -> Stained:
    """Stain a network and read off its wiring.

    The network is run in evaluation mode without gradients, once for every projection and once for every bit
    of the codes; its weights, buffers and modes are as before afterwards.

    Args:
        model: any network that runs forward.
        example_inputs: what its forward takes: a tuple of positional or a dictionary of keyword arguments.

    Raises:
        ValueError: where the network makes NaN by itself, so that no dye can be told from it.
    """
    stainer = _Stainer(model, example_inputs)
    with stainer.stained():
        seen, at_output = stainer.run(_Pass(emit=lambda name, units: None))
        if seen or at_output:
            where = ", ".join(sorted({site.module for site in seen})) or "the output"
            raise ValueError(
                f"the network makes NaN where no dye is, seen at {where}: give example inputs without NaN, and check "
                "for divisions by zero"
            )
        order = list(stainer.order)
        sources = [site.module for site in order if site.module in stainer.projections]
        reach: dict[str, dict[Site, Reach]] = {}
        outputs = set()
        for source in sources:
            reach[source], at_output = stainer.run(
                _Pass(
                    emit=lambda name, units, source=source: (  # type: ignore[misc]
                        torch.ones(units, dtype=torch.bool) if name == source else None
                    )
                )
            )
            if at_output:
                outputs.add(source)
        reach[INPUT], at_output = stainer.run(
            _Pass(emit=lambda name, units: None),
            inputs=map_floats(example_inputs, lambda tensor: torch.full_like(tensor, torch.nan)),
        )
        if at_output:
            outputs.add(INPUT)
        feeds: dict[Site, dict[str, Tensor]] = {}
        for group in _groups({source: reach[source] for source in sources}):
            _decode(stainer, group, reach, feeds)
        hush = _Pass(emit=lambda name, units: None, fill=0.0, silent=True)
        stainer.run(hush)
    for site, found in reach[INPUT].items():
        for dim, profile in found.items():
            if site.module in stainer.projections or {dim} == stainer.axes.get(site):
                fed = torch.where(profile, torch.tensor(0), torch.tensor(NOBODY))
                feeds.setdefault(site, {})[INPUT] = fed
    axis = {site: next(iter(axes)) for site, axes in stainer.axes.items() if len(axes) == 1}
    for name, module in stainer.projections.items():
        kind = projection_kind(module)
        if kind is not None:
            axis[Site(name)] = kind.activity_axis
    return Stained(
        feeds=feeds,
        axis=axis,
        reached={source: set(found) for source, found in reach.items()},
        outputs=outputs,
        loud={name: loud.cpu() for name, loud in hush.loud.items()},
        order=order,
        shapes=stainer.shapes,
    )


def _groups(reach: dict[str, dict[Site, Reach]]) -> list[list[str]]:
    """Sources in groups whose dyes never meet, so that one set of passes serves a whole group."""
    groups: list[list[str]] = []
    for source in reach:
        for group in groups:
            if not any(_meet(reach[source], reach[other]) for other in group):
                group.append(source)
                break
        else:
            groups.append([source])
    return groups


def _decode(
    stainer: _Stainer,
    group: list[str],
    reach: dict[str, dict[Site, Reach]],
    feeds: dict[Site, dict[str, Tensor]],
) -> None:
    """Dye the units of a group of sources by their codes; write down who feeds which feature."""
    words = {source: _codewords(size_of(stainer.projections[source])[0]) for source in group}
    bits = max(word.shape[1] for word in words.values())
    seen: list[dict[Site, Reach]] = []
    for bit in range(bits):
        dye = {source: word[:, bit] for source, word in words.items() if bit < word.shape[1]}
        seen.append(stainer.run(_Pass(emit=lambda name, units, dye=dye: dye.get(name)))[0])  # type: ignore[misc]
    for source in group:
        lookup = {tuple(word): unit for unit, word in enumerate(words[source].tolist())}
        for site, found in reach[source].items():
            axis = _axis_of(stainer, site, found)
            if axis is None:
                continue
            profile = found.get(axis)
            if profile is None:
                continue
            code = torch.zeros(len(profile), words[source].shape[1], dtype=torch.bool)
            for bit in range(words[source].shape[1]):
                bit_profile = seen[bit].get(site, {}).get(axis)
                if bit_profile is not None:
                    code[:, bit] = bit_profile
            fed = [
                lookup.get(tuple(word), MIXED) if dyed else NOBODY
                for word, dyed in zip(code.tolist(), profile.tolist(), strict=True)
            ]
            feeds.setdefault(site, {})[source] = torch.tensor(fed, dtype=torch.int64)


def _axis_of(stainer: _Stainer, site: Site, found: Reach) -> int | None:
    """The axis that counts features at a site, if the dye told it."""
    if site.module in stainer.projections:
        return next(iter(found), None)
    axes = stainer.axes.get(site, set())
    return next(iter(axes)) if len(axes) == 1 else None
