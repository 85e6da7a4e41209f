"""Run a network with dye in place of its weights, and record where it arrives.

Weight layers emit what a pass prescribes, spiking neurons are transparent, and every site records its input.
The dye is NaN: it passes normalisation, pooling, flattening, concatenation, additions, time loops and any Python
between, and nothing else makes it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.layers import is_depthwise, layer_kind, size_of
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.pytrees import Inputs, float_tensors, is_float, map_floats, nan_like, run

Reach = dict[int, Bool[Tensor, "_"]]
"""Axis of an activity, from the end -> which slices along it hold what is detected."""


@dataclass(frozen=True)
class Site:
    """A place where dye is recorded: a module, and which of its calls in one forward pass.

    Weight layers, depthwise convolutions and spiking neurons (each call is a timestep) collect all their calls in
    call 0; other modules have one site a call.
    """

    module: str
    call: int = 0


@dataclass
class Pass:
    """What one forward pass emits, what it detects, and where that was found.

    Attributes:
        dye: weight layer -> which of its units emit dye instead of `emit`.
        emit: what weight layers emit: "ones", "zeros", or "noise" of random sign.
        silent: weight layers that emit zeros whatever the others do.
        detect: "dye" for NaN, "activity" for anything that is not zero.
        stateful: output of modules with a value per feature (normalisation): what they compute ("run"), zeros
            ("zero", as for silent units), or their input ("identity").
        narrow: whether axes along which the dye does not lie in whole slices are ruled out.
        seed: of the noise.
        sites: where to record; everywhere if None.
        found: site -> where it was found.
        calls: module -> how often it was called.
        positions: weight layer -> how often its weights were used.
        at_output: whether it arrived in an output.
    """

    dye: dict[str, Bool[Tensor, "_"]] = field(default_factory=dict)
    emit: Literal["ones", "zeros", "noise"] = "ones"
    silent: frozenset[str] = frozenset()
    detect: Literal["dye", "activity"] = "dye"
    stateful: Literal["run", "zero", "identity"] = "run"
    narrow: bool = False
    seed: int = 0
    sites: frozenset[Site] | None = None
    found: dict[Site, Reach] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    at_output: bool = False

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def output(self, name: str, axis: int, form: "Form", device: torch.device) -> Tensor:
        """What a weight layer emits in this pass."""
        shape, dtype = form
        if self.emit == "zeros" or name in self.silent:
            return torch.zeros(shape, dtype=dtype, device=device)
        if self.emit == "noise":
            return torch.randn(shape, generator=self._generator).to(device, dtype)
        output = torch.ones(shape, dtype=dtype, device=device)
        dye = self.dye.get(name)
        return output if dye is None else _dyed(output, along(dye, axis, len(shape)).to(device))


Form = tuple[torch.Size, torch.dtype]
"""Shape and precision of a layer's output."""


def along(profile: Tensor, axis: int, dimensions: int) -> Tensor:
    """Values along one axis, from the end, to be broadcast to an activity."""
    shape = [1] * dimensions
    shape[axis] = -1
    return profile.view(shape)


def holds_state(module: nn.Module) -> bool:
    """Whether a module, and none of its children, has parameters or buffers, which may belong to single units."""
    state = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    own = {id(tensor) for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))}
    return bool(own) and own == state


class Dyer:
    """A network with weight layers that emit dye.

    Args:
        model: any network that runs forward.
        example_inputs: what its forward takes.

    Attributes:
        layers: weight layers by name.
        axes: site -> axes of its activity that may count features, from the end, if some were ruled out.
        order: sites in the order of their calls.
        shapes: site -> shape of its activity.
        calls: module -> how often it was called in one forward pass.
        positions: weight layer -> how often its weights are used in one forward pass: positions of the map that it
            makes (transposed: reads), times batch, times calls.
        mixing: modules with values of their own that emit the dye elsewhere than where they receive it.
        passing: those that emit it exactly there.
    """

    def __init__(self, model: nn.Module, example_inputs: Inputs) -> None:
        self.model = model
        self.example_inputs = example_inputs
        self.layers: dict[str, nn.Module] = {}
        self._depthwise: dict[str, nn.Module] = {}
        self._intermediate: dict[str, nn.Module] = {}
        self.axes: dict[Site, tuple[int, ...]] = {}
        self.order: dict[Site, None] = {}
        self.shapes: dict[Site, tuple[int, ...]] = {}
        self.calls: dict[str, int] = {}
        self.positions: dict[str, int] = {}
        self.mixing: set[str] = set()
        self.passing: set[str] = set()
        self._outputs: dict[tuple[str, tuple[int, ...]], Form] = {}
        self._returned: dict[str, Any] = {}
        self._now: Pass | None = None
        for name, module in model.named_modules():
            if is_depthwise(module):
                self._depthwise[name] = module
            elif layer_kind(module) is not None:
                self.layers[name] = module
            elif neuron_kind(module) is not None or holds_state(module):
                self._intermediate[name] = module

    @contextmanager
    def ready(self, *, training_paths: bool) -> Iterator[None]:
        """Freeze the network, and let its modules emit and record."""
        changed: list[nn.Module] = []
        forwards = {
            **{name: (module, self._weight_layer) for name, module in self.layers.items()},
            **{name: (module, self._channelwise) for name, module in self._depthwise.items()},
            **{name: (module, self._intermediate_layer) for name, module in self._intermediate.items()},
        }
        with frozen(self.model, training_paths=training_paths):
            try:
                for name, (module, make) in forwards.items():
                    if "forward" in module.__dict__:
                        raise TypeError(
                            f"{name} ({type(module).__name__}) has a forward of its own on the instance (a wrapper?); "
                            "give the unwrapped network to Pruner and wrap it afterwards"
                        )
                    module.__dict__["forward"] = make(name, module, module.forward)
                    changed.append(module)
                yield
            finally:
                for module in changed:
                    del module.__dict__["forward"]

    def run(self, now: Pass, inputs: Inputs | None = None) -> Pass:
        """One forward pass."""
        self._now = now
        # weight layers do not run, they emit
        reset_state(self.model, weights=False)
        output = run(self.model, self.example_inputs if inputs is None else inputs)
        self.positions = now.positions
        now.at_output = any(bool(_found(tensor, now).any()) for tensor in float_tensors(output))
        for name, calls in now.calls.items():
            self.calls[name] = max(calls, self.calls.get(name, 0))
        return now

    def _pass(self) -> Pass:
        if self._now is None:
            raise RuntimeError("no pass is running: call run()")
        return self._now

    def _shape(
        self, name: str, activity: Tensor, original: Callable[..., Any], rest: Any, options: Any
    ) -> Form:
        """Form of a layer's output, found by running the layer once."""
        key = (name, tuple(activity.shape))
        if key not in self._outputs:
            output = original(torch.nan_to_num(activity), *rest, **options)
            self._outputs[key] = (output.shape, output.dtype)
        return self._outputs[key]

    def distinguishes(self, site: Site) -> bool:
        """Whether units must be distinguished at a site: where they are read or their activity is recorded."""
        module = self._intermediate.get(site.module)
        return site.module in self.layers or (module is not None and neuron_kind(module) is not None)

    def _records(self, site: Site) -> bool:
        sites = self._pass().sites
        return sites is None or site in sites

    def _record(self, site: Site, axis: int, profile: Tensor) -> None:
        found = self._pass().found.setdefault(site, {})
        before = found.get(axis)
        if before is not None and before.shape == profile.shape:
            profile = profile | before
        found[axis] = profile

    def _narrow(self, site: Site, dyed: Tensor) -> None:
        """Rule out axes along which the dyed slices are not all alike, or are all there are."""
        if dyed.all() or not dyed.any():
            return
        left = []
        for axis in self.axes.get(site, range(-dyed.ndim, 0)):
            others = [other for other in range(-dyed.ndim, 0) if other != axis]
            profile = dyed.any(dim=others) if others else dyed
            alike = int(dyed.sum()) == int(profile.sum()) * int(dyed.any(dim=axis).sum())
            if alike and not profile.all():
                left.append(axis)
        self.axes[site] = tuple(left)

    def _weight_layer(self, name: str, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        axis, site = _activity_axis(module), Site(name)
        transposed = getattr(module, "transposed", False)

        def forward(input: Tensor, *rest: Any, **options: Any) -> Tensor:
            form = self._shape(name, input, original, rest, options)
            self.order.setdefault(site)
            self.shapes[site] = tuple(input.shape)
            if self._records(site):
                self._record(site, axis, _profile(input, axis, self._pass()))
            shape = input.shape if transposed else form[0]
            positions = self._pass().positions
            positions[name] = positions.get(name, 0) + shape.numel() // max(shape[axis], 1)
            return self._pass().output(name, axis, form, input.device)

        return forward

    def _channelwise(self, name: str, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        axis, site = _activity_axis(module), Site(name)
        units, features = size_of(module)

        def forward(input: Tensor, *rest: Any, **options: Any) -> Tensor:
            now = self._pass()
            form = self._shape(name, input, original, rest, options)
            self.order.setdefault(site)
            self.shapes[site] = tuple(input.shape)
            profile = _profile(input, axis, now).repeat_interleave(units // features)
            self._record(site, axis, profile)
            output = now.output(name, axis, form, input.device)
            here = along(profile.to(input.device), axis, output.ndim)
            if now.detect == "activity":
                return output * here
            output = _dyed(output, here)
            _cache(output, axis, profile)
            return output

        return forward

    def _intermediate_layer(
        self, name: str, module: nn.Module, original: Callable[..., Any]
    ) -> Callable[..., Any]:
        kind = neuron_kind(module)
        leaf = not any(True for _ in module.children())

        def forward(*inputs: Any, **options: Any) -> Any:
            now = self._pass()
            given = (*inputs, *options.values())
            activity = next((value for value in given if isinstance(value, Tensor)), None)
            if activity is None or not is_float(activity):
                return original(*inputs, **options)
            call = now.calls.get(name, 0)
            now.calls[name] = call + 1
            site = Site(name, 0 if kind is not None and kind.spikes else call)
            self.order.setdefault(site)
            self.shapes[site] = tuple(activity.shape)
            if now.narrow:
                self._narrow(site, torch.isnan(activity))
            for axis in self.axes.get(site, range(-activity.ndim, 0)) if self._records(site) else ():
                self._record(site, axis, _profile(activity, axis, now))
            if kind is not None and kind.spikes and now.stateful != "zero":
                return self._transparent(name, original, activity, inputs, options)
            if now.detect == "dye" and leaf and (kind is not None or name in self.passing):
                # elementwise, or nearly: the dye would leave where it arrived
                return activity
            if kind is None and now.stateful != "run":
                output = original(*inputs, **options)
                if isinstance(output, Tensor) and output.shape == activity.shape:
                    return activity if now.stateful == "identity" else torch.zeros_like(output)
                return output
            output = original(*inputs, **options)
            if kind is None and now.narrow:
                if not _same_dye(activity, output):
                    self.mixing.add(name)
                elif name not in self.mixing and bool(torch.isnan(activity).any()):
                    self.passing.add(name)
            return output

        return forward

    def _transparent(
        self, name: str, original: Callable[..., Any], activity: Tensor, inputs: Any, options: Any
    ) -> Any:
        """The input of a spiking neuron, in the form in which it returns spikes (and states) itself."""
        if name not in self._returned:
            self._returned[name] = original(
                *map_floats(tuple(inputs), torch.nan_to_num), **map_floats(options, torch.nan_to_num)
            )
        return map_floats(
            self._returned[name], lambda part: activity if part.shape == activity.shape else part
        )


def _activity_axis(module: nn.Module) -> int:
    kind = layer_kind(module)
    if kind is None:
        raise TypeError(f"expected a Linear or convolution layer; got {type(module).__name__}")
    return kind.activity_axis


def _found(activity: Tensor, now: Pass) -> Tensor:
    return torch.isnan(activity) if now.detect == "dye" else activity != 0


def _profile(activity: Tensor, axis: int, now: Pass) -> Bool[Tensor, "_"]:
    """Which slices along an axis hold what is detected."""
    others = [other for other in range(-activity.ndim, 0) if other != axis]
    if now.detect == "activity":
        strongest = activity.abs().amax(others) if others else activity
        return (strongest != 0).cpu()
    version, cached = _cached(activity)
    if version is not None and version == _version(activity) and axis in cached:
        return cached[axis]
    # a sum with NaN is NaN: the activity is read once, without a mask of its size
    profile = torch.isnan(activity.sum(others) if others else activity).cpu()
    _cache(activity, axis, profile)
    return profile


_CACHE: Any = WeakTensorKeyDictionary()


def _cached(activity: Tensor) -> tuple[int | None, dict[int, Bool[Tensor, "_"]]]:
    """What was cached of a tensor, and for which version of it."""
    cached: tuple[int | None, dict[int, Tensor]] = _CACHE.get(activity, (None, {}))
    return cached


def _cache(activity: Tensor, axis: int, profile: Tensor) -> None:
    """Cache which slices of a tensor are dyed, until it is changed in place."""
    version, cached = _cached(activity)
    now = _version(activity)
    if now is not None:
        _CACHE[activity] = (now, {**(cached if version == now else {}), axis: profile})


def _version(activity: Tensor) -> int | None:
    return None if activity.is_inference() else activity._version


def _dyed(activity: Tensor, where: Bool[Tensor, "..."]) -> Tensor:
    """An activity with dye in some places."""
    return torch.where(where, nan_like(activity), activity)


def _same_dye(given: Tensor, output: Any) -> bool:
    if not isinstance(output, Tensor) or output.shape != given.shape:
        return False
    return bool((torch.isnan(output) == torch.isnan(given)).all())
