"""Run a network with dye in place of its weights, and record where it arrives.

Weight layers emit what a pass prescribes, spiking neurons are transparent, and every site records its input.
The dye is NaN: it passes normalisation, pooling, flattening, concatenation, additions, time loops and any Python
between, and nothing else makes it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.layers import by_row, called_as, is_depthwise, layer_kind, size_of
from dpap.anatomy.neurons import neuron_kind
from dpap.anatomy.pytrees import (
    Inputs,
    Outputs,
    all_tensors,
    examples_of,
    float_tensors,
    is_float,
    keeping,
    map_floats,
    run,
)
from dpap.anatomy.recurrent import emission, is_recurrent, layers_of, parts_of
from dpap.anatomy.staining.emissions import Emissions, Perturbation
from dpap.anatomy.staining.products import Products
from dpap.anatomy.staining.profiles import (
    Detect,
    along,
    cache_profile,
    dyed,
    found,
    passes_dye,
    profile_of,
    profile_of_all,
    same_dye,
)

Reach = dict[int, Bool[Tensor, "_"]]
"""Axis of an activity, from the end -> which slices along it hold what is detected."""


Values = tuple[torch.Size, Tensor]
"""Shape of an activity, and a number for each slice along an axis, which changes where one of its values does."""


@dataclass(frozen=True)
class Site:
    """A place where dye is recorded: a module, and which of its calls in one forward pass.

    Weight layers, depthwise convolutions and spiking neurons (each call is a timestep) collect all their calls in
    call 0; other modules have one site a call.
    """

    module: str
    call: int = 0


RETURNED = "<returned>"
"""Instead of a module: one of the tensors that forward returns and that need not keep their width."""


@dataclass
class Pass:
    """What one forward pass emits, what it detects, and where that was found.

    Attributes:
        dye: weight layer -> which of its units emit dye instead of `emit`.
        emit: what weight layers emit: "own" for what they emit on the example, "ones", "zeros", or "noise" of
            random sign; "run" runs the network as it is, and records nothing but what weight layers emit.
        silent: weight layers that emit zeros whatever the others do.
        perturbation: what is added to that.
        detect: "dye" for NaN, "activity" for anything that is not zero, "values" for a number that changes as the
            values do.
        stateful: output of modules with a value per feature (normalisation): what they compute ("run"), zeros
            ("zero", as for silent units), or their input ("identity").
        narrow: whether axes along which the dye does not lie in whole slices are ruled out.
        seed: of the noise.
        sites: where to record; everywhere if None.
        found: site -> where it was found.
        calls: module -> how often it was called on this example.
        example: number of the example.
        positions: weight layer -> how often its weights were used, on all examples: positions of the map that it
            makes (transposed: reads), times batch, times calls.
        at_output: whether it arrived in an output.
        values: site and example -> axis -> shape and a number for each slice along it, in each call.
        returned: the outputs that keep their width, where values are detected.
    """

    dye: dict[str, Bool[Tensor, "_"]] = field(default_factory=dict)
    emit: Literal["run", "own", "ones", "zeros", "noise"] = "own"
    silent: frozenset[str] = frozenset()
    perturbation: Perturbation | None = None
    detect: Detect = "dye"
    stateful: Literal["run", "zero", "identity"] = "run"
    narrow: bool = False
    seed: int = 0
    sites: frozenset[Site] | None = None
    found: dict[Site, Reach] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    example: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    at_output: bool = False
    values: dict[tuple[Site, int], dict[int, list[Values]]] = field(default_factory=dict)
    returned: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    def call(self, name: str) -> int:
        """Count a call of a module; returns its number within the forward."""
        call = self.calls.get(name, 0)
        self.calls[name] = call + 1
        return call

    def output(self, name: str, axis: int, form: "Form", device: torch.device, own: Tensor | None) -> Tensor:
        """What a weight layer emits in this pass; `own` is what it emits on the example, a tensor that may change."""
        shape, dtype = form
        if self.emit == "zeros" or name in self.silent:
            return torch.zeros(shape, dtype=dtype, device=device)
        if self.emit == "noise":
            return torch.randn(shape, generator=self._generator).to(device, dtype)
        output = torch.ones(shape, dtype=dtype, device=device) if own is None else own
        if self.perturbation is not None:
            return self.perturbation.added_to(output, name, axis)
        dye = self.dye.get(name)
        return output if dye is None else dyed(output, along(dye, axis, len(shape)).to(device))


Form = tuple[torch.Size, torch.dtype]
"""Shape and precision of a layer's output."""


def holds_state(module: nn.Module) -> bool:
    """Whether a module, and none of its children, has parameters or buffers, which may belong to single units."""
    state = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    own = {id(tensor) for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))}
    return bool(own) and own == state


class Dyer:
    """A network with weight layers that emit dye.

    Args:
        model: any network that runs forward.
        example_inputs: what its forward takes; every pass runs all of several examples.
        outputs: gives the tensors that keep their width, of what forward returns; all do if None.

    Attributes:
        layers: weight layers by name.
        axes: site -> axes of its activity that may count features, from the end, if some were ruled out.
        order: sites in the order of their calls when the network runs as it is; nothing else is recorded.
        shapes: site -> shape of its activity, on the first example that reaches it.
        empty: whether a site was reached by a batch of no sample.
        calls: module -> how often it was called in one forward pass.
        mixing: modules with values of their own that emit the dye elsewhere than where they receive it.
        passing: those that emit it exactly there.
    """

    def __init__(self, model: nn.Module, example_inputs: Inputs, outputs: Outputs | None = None) -> None:
        self.model = model
        self.outputs = outputs
        self.examples = examples_of(example_inputs)
        self.layers: dict[str, nn.Module] = {}
        self._depthwise: dict[str, nn.Module] = {}
        self._recurrent: dict[str, nn.Module] = {}
        self._intermediate: dict[str, nn.Module] = {}
        self.axes: dict[Site, tuple[int, ...]] = {}
        self.order: dict[Site, None] = {}
        self.shapes: dict[Site, tuple[int, ...]] = {}
        self.empty = False
        self.calls: dict[str, int] = {}
        self.mixing: set[str] = set()
        self.passing: set[str] = set()
        self._outputs: dict[tuple[str, tuple[int, ...]], Form] = {}
        self._returned: dict[Any, Any] = {}
        self._emissions = Emissions()
        self._products = Products()
        self._now: Pass | None = None
        for name, module in model.named_modules():
            if is_depthwise(module):
                self._depthwise[name] = module
            elif is_recurrent(module):
                self._recurrent[name] = module
                self.layers |= layers_of(name, module)
            elif layer_kind(module) is not None:
                self.layers[name] = module
            elif neuron_kind(module) is not None or holds_state(module):
                self._intermediate[name] = module

    @contextmanager
    def ready(self, *, training_paths: bool) -> Iterator[None]:
        """Freeze the network, and let its modules emit and record."""
        changed: list[nn.Module] = []
        forwards = {
            **{
                name: (module, self._weight_layer)
                for name, module in self.layers.items()
                if called_as(module) is not None
            },
            **{name: (module, self._recurrent_module) for name, module in self._recurrent.items()},
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

    def observe(self) -> None:
        """Run the network as it is: which sites it reaches, and what its weight layers emit."""
        self.order.clear()
        self._emissions.clear()
        self.run(Pass(emit="run"))

    def emit_ones(self) -> None:
        """Let weight layers emit ones instead of what they emit on the examples."""
        self._emissions.clear()

    def run(self, now: Pass, inputs: Inputs | None = None) -> Pass:
        """One forward pass of every example, or of other inputs that are like them."""
        self._now = now
        now.dye = self._by_row(now.dye)
        if now.perturbation is not None:
            now.perturbation = replace(now.perturbation, units=self._by_row(now.perturbation.units))
        for number, example in enumerate(self.examples if inputs is None else examples_of(inputs)):
            now.example = number
            now.calls.clear()
            # weight layers do not run, they emit
            reset_state(self.model, weights=now.emit == "run")
            with nullcontext() if now.emit == "run" else self._products.within_pass():
                returned = run(self.model, example)
            if now.emit != "run":
                kept = keeping(self.outputs, returned)
                if now.detect == "values":
                    now.returned += [tensor.detach().clone() for tensor in all_tensors(kept)]
                if self.outputs is not None and now.detect == "dye":
                    self._record_returned(returned, kept)
                now.at_output |= any(bool(found(tensor, now.detect).any()) for tensor in float_tensors(kept))
            for name, calls in now.calls.items():
                self.calls[name] = max(calls, self.calls.get(name, 0))
        return now

    def _by_row(self, units: Mapping[str, Bool[Tensor, "_"]]) -> dict[str, Bool[Tensor, "_"]]:
        """Which of what weight layers emit is of these units: of fused ones several values are of one unit."""
        return {
            name: some if called_as(self.layers[name]) is None else by_row(some, self.layers[name])
            for name, some in units.items()
        }

    def _record_returned(self, returned: Any, kept: Any) -> None:
        """Record what need not keep its width: the user may hand it back, as states."""
        keeps = {id(tensor) for tensor in float_tensors(kept)}
        for place, tensor in enumerate(float_tensors(returned)):
            if id(tensor) not in keeps and tensor.numel():
                site = Site(RETURNED, place)
                self.shapes.setdefault(site, tuple(tensor.shape))
                for axis in self.axes.get(site, range(-tensor.ndim, 0)):
                    self._record(site, axis, profile_of(tensor, axis, self._pass().detect), tensor)

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
        return site in self.order and (sites is None or site in sites)

    def _record(self, site: Site, axis: int, profile: Tensor, activity: Tensor) -> None:
        now = self._pass()
        if now.detect == "values":
            now.values.setdefault((site, now.example), {}).setdefault(axis, []).append(
                (activity.shape, profile)
            )
            return
        found = now.found.setdefault(site, {})
        before = found.get(axis)
        if before is not None and before.shape != profile.shape:
            # an axis of several lengths counts no features
            self.axes[site] = tuple(other for other in self.axes.get(site, found) if other != axis)
            return
        found[axis] = profile if before is None else profile | before

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
            now = self._pass()
            call = now.call(name)
            if now.emit == "run":
                return self._own(site, call, axis, original(input, *rest, **options), input)
            form = self._shape(name, input, original, rest, options)
            if self._records(site) and input.numel():
                self._record(site, axis, profile_of_all(input, (rest, options), axis, now.detect), input)
            shape = input.shape if transposed else form[0]
            now.positions[name] = now.positions.get(name, 0) + shape.numel() // max(shape[axis], 1)
            own = self._emissions.output(name, now.example, call, form[0]) if now.emit == "own" else None
            return now.output(name, axis, form, input.device, own)

        return forward

    def _recurrent_module(
        self, name: str, module: nn.Module, original: Callable[..., Any]
    ) -> Callable[..., Any]:
        parts = parts_of(name, module)

        def forward(input: Any, hx: Any = None) -> Any:
            now = self._pass()
            # of a packed sequence the data come first
            given, *states = float_tensors((input, hx))
            rows = given.numel() // max(given.shape[-1], 1)
            if now.emit == "run":
                for layer, view in layers_of(name, module).items():
                    if given.numel():
                        self.order.setdefault(Site(layer))
                        self.shapes.setdefault(Site(layer), (rows, size_of(view)[1]))
                return original(input, hx)
            key = (name, *(one.shape for one in (given, *states)))
            if key not in self._returned:
                self._returned[key] = original(*map_floats((input, hx), torch.nan_to_num))
            returned = list(float_tensors(self._returned[key]))

            def emit(layer: str, shape: torch.Size, like: Tensor) -> Tensor:
                return now.output(layer, -1, (shape, returned[0].dtype), like.device, None)

            mark = torch.nan if now.detect == "dye" else 1.0
            made, read = emission(
                parts, given, states, returned, emit, lambda x: profile_of(x, -1, now.detect), mark
            )
            for layer, profile in read.items():
                if self._records(Site(layer)) and given.numel():
                    self._record(Site(layer), -1, profile, given)
                now.positions[layer] = now.positions.get(layer, 0) + rows
            emitted = iter(made)
            return map_floats(self._returned[key], lambda _: next(emitted))

        return forward

    def _channelwise(self, name: str, module: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
        axis, site = _activity_axis(module), Site(name)
        units, features = size_of(module)

        def forward(input: Tensor, *rest: Any, **options: Any) -> Tensor:
            now = self._pass()
            call = now.call(name)
            if now.emit == "run":
                return self._own(site, call, axis, original(input, *rest, **options), input)
            form = self._shape(name, input, original, rest, options)
            own = self._emissions.output(name, now.example, call, form[0]) if now.emit == "own" else None
            output = now.output(name, axis, form, input.device, own)
            if not input.numel():
                return output
            if now.detect == "values":
                if self._records(site):
                    values = profile_of(input, axis, now.detect).repeat_interleave(units // features)
                    self._record(site, axis, values, input)
                return original(input, *rest, **options)
            profile = profile_of(input, axis, now.detect).repeat_interleave(units // features)
            if self._records(site):
                self._record(site, axis, profile, input)
            here = along(profile.to(input.device), axis, output.ndim)
            if now.detect == "activity":
                return output * here
            output = dyed(output, here)
            cache_profile(output, axis, profile)
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
            call = now.call(name)
            site = Site(name, 0 if kind is not None and kind.spikes else call)
            if now.emit == "run":
                self._reached(site, activity)
            if now.emit == "run" or not activity.numel():
                return original(*inputs, **options)
            if now.narrow:
                self._narrow(site, torch.isnan(activity))
            for axis in self.axes.get(site, range(-activity.ndim, 0)) if self._records(site) else ():
                self._record(site, axis, profile_of(activity, axis, now.detect), activity)
            if kind is not None and (kind.transparent or (kind.spikes and now.stateful != "zero")):
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
                if not same_dye(activity, output):
                    self.mixing.add(name)
                elif name not in self.mixing and leaf and passes_dye(original, activity, inputs, options):
                    self.passing.add(name)
            return output

        return forward

    def _transparent(
        self, name: str, original: Callable[..., Any], activity: Tensor, inputs: Any, options: Any
    ) -> Any:
        """The input of a spiking neuron, in the form in which it returns spikes (and states) itself."""
        key = (name, tuple(activity.shape))
        if key not in self._returned:
            self._returned[key] = original(
                *map_floats(tuple(inputs), torch.nan_to_num), **map_floats(options, torch.nan_to_num)
            )
        return map_floats(
            self._returned[key], lambda part: activity if part.shape == activity.shape else part
        )

    def _reached(self, site: Site, activity: Tensor) -> None:
        """The network as it is reaches a site; a batch of none does not."""
        if activity.numel():
            self.order.setdefault(site)
            self.shapes.setdefault(site, tuple(activity.shape))
        else:
            self.empty = True

    def _own(self, site: Site, call: int, axis: int, output: Tensor, activity: Tensor) -> Tensor:
        """What a layer emits on the example, kept for other passes."""
        self._reached(site, activity)
        if activity.numel():
            self._emissions.keep(site.module, self._pass().example, call, output, axis)
        self._outputs[site.module, tuple(activity.shape)] = (output.shape, output.dtype)
        return output


def _activity_axis(module: nn.Module) -> int:
    kind = layer_kind(module)
    if kind is None:
        raise TypeError(f"expected a Linear or convolution layer; got {type(module).__name__}")
    return kind.activity_axis
