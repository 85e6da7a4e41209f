"""Which values of a module belong to its units: those that, when changed, move the activity of one unit and no other.

A size says nothing: a weight for each of 16 timesteps looks like one for each of 16 channels. So the module is run
again by itself, on noise, with half of the values along an axis changed, and what moves is looked at.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import preserved_state
from dpap.anatomy.layers import between, known_kind, size_of
from dpap.anatomy.pytrees import Inputs, float_tensors, map_floats, run

SCALES = (1.0, 4.0, 0.25)
"""Strengths of the noise on which a module is run: a threshold may hide a change at some of them."""


@dataclass(frozen=True)
class Belonging:
    """Axes of a tensor along which its entries belong to units, and to input features; None where to none."""

    unit: int | None = None
    feature: int | None = None


def tensors_of(module: nn.Module, recurse: bool = True) -> dict[str, Tensor]:
    """Floating-point parameters and buffers of a module by name."""
    own = (*module.named_parameters(recurse=recurse), *module.named_buffers(recurse=recurse))
    return {name: tensor for name, tensor in own if tensor.is_floating_point()}


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by the name that `tensors_of` gives it."""
    owner, _, own = name.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), own)
    return tensor


class Replay:
    """Runs a module again by itself, on noise of the form of what it was called with.

    Its tensors, hidden state and mode, and the random state, are as before after each run. Use it within `frozen`.

    Args:
        module: the module.
        args, options: what it was called with.
        axis: of its first tensor that counts features, from the end.

    Attributes:
        values: random ones of its tensors.
        left: what the last run left in its tensors.
    """

    def __init__(self, module: nn.Module, args: Any, options: Any, axis: int) -> None:
        self.module = module
        self.axis = axis
        self.left: dict[str, Tensor] = {}
        self._args, self._options = args, options
        generator = torch.Generator().manual_seed(0)
        self.values = {
            name: torch.empty(tensor.shape).uniform_(0.5, 1.5, generator=generator).to(tensor)
            for name, tensor in tensors_of(module).items()
        }

    @property
    def features(self) -> int:
        """How many features its first tensor has."""
        return next(float_tensors((self._args, self._options))).shape[self.axis]

    def keeps(self, name: str) -> bool:
        """Whether a run leaves a tensor as it was, which state is not."""
        try:
            self.outputs()
        except Exception:
            return False
        return torch.equal(self.left[name], self.values[name])

    def outputs(
        self,
        scale: float = 1.0,
        values: Mapping[str, Tensor] | None = None,
        silent: Bool[Tensor, "_"] | None = None,
        other: Bool[Tensor, "_"] | None = None,
        negated: Bool[Tensor, "_"] | None = None,
        training: bool = False,
    ) -> list[Tensor]:
        """Its floating-point outputs.

        Args:
            scale: strength of the noise.
            values: of some of its tensors; the others hold random ones from 0.5 to 1.5.
            silent: features that are zero.
            other: features with other noise than usual.
            negated: features with the opposite of the usual noise.
            training: whether the module is in training mode.
        """
        generator = torch.Generator().manual_seed(1)
        first = True

        def noise(like: Tensor) -> Tensor:
            nonlocal first
            tensor = torch.randn(like.shape, generator=generator)
            if first:
                first = False
                shape = [1] * tensor.ndim
                shape[self.axis] = -1
                if silent is not None:
                    tensor = tensor.masked_fill(silent.view(shape), 0)
                if other is not None:
                    tensor = torch.where(other.view(shape), tensor * 2 + 0.3, tensor)
                if negated is not None:
                    tensor = torch.where(negated.view(shape), -tensor, tensor)
            return (tensor * scale).to(like)

        args, options = map_floats(tuple(self._args), noise), map_floats(dict(self._options), noise)
        with (
            _replaced(self.module, {**self.values, **(values or {})}),
            _mode(self.module, training),
            preserved_state(self.module),
        ):
            _seed(self.module)
            # twice: what weighs a state that begins at zero shows at the second call, which is given what was returned
            found = [tensor.detach().clone() for tensor in float_tensors(self.module(*args, **options))]
            states = iter([next(float_tensors((args, options)), torch.empty(0)), *found[1:]])

            def handed_on(tensor: Tensor) -> Tensor:
                return next(states, tensor)

            args, options = map_floats(args, handed_on), map_floats(options, handed_on)
            with suppress(Exception):
                again = float_tensors(self.module(*args, **options))
                found += [tensor.detach().clone() for tensor in again]
            self.left = {name: tensor.detach().clone() for name, tensor in tensors_of(self.module).items()}
            return found


def unit_axes(replay: Replay, names: Collection[str], units: int, axis: int | None = None) -> dict[str, int]:
    """Tensors of which the entries along an axis each move one unit of the output, and that axis.

    Args:
        replay: of the module.
        names: of the tensors.
        units: how many there are.
        axis: of the output that counts them, from the end; None to find it by the features that move it.
    """
    half = _half(units)
    found = {}

    @cache
    def unchanged(scale: float, training: bool) -> tuple[list[Tensor], int | None]:
        before = replay.outputs(scale, training=training)
        return before, _output_axis(replay, scale, before, half, training) if axis is None else axis

    for name in names:
        value = replay.values[name]
        axes = [at for at, size in enumerate(value.shape) if size == units]
        for at in reversed(axes if units > 1 else []):
            changed = {name: _changed(value, at, half)}
            verdict = None
            for scale, training in ((scale, mode) for mode in (False, True) for scale in SCALES):
                try:
                    before, along = unchanged(scale, training)
                    if along is not None:
                        after = replay.outputs(scale, changed, training=training)
                        verdict = _moves_only(before, after, along, half)
                except Exception:
                    # not everything runs on noise, or in training mode; what is not shown to belong is left alone
                    continue
                if verdict is not None:
                    break
            if verdict or (verdict is None and _is_written(replay, name, at, half)):
                found[name] = at
                break
    return found


def _is_written(replay: Replay, name: str, at: int, half: Tensor) -> bool:
    """Whether entries along an axis of a tensor that moves no output hold what the forward saw of one feature each."""
    if replay.features != len(half):
        return False
    for training in (False, True):
        try:
            replay.outputs(training=training)
            before = replay.left[name]
            replay.outputs(other=half, training=training)
        except Exception:
            continue
        if _moves_only([before], [replay.left[name]], at - before.ndim, half):
            return True
    return False


def feature_axes(replay: Replay, names: Collection[str], features: int) -> dict[str, int]:
    """Tensors of which the entries along an axis each matter only to one input feature, and that axis."""
    half = _half(features)
    found = {}
    for name in names:
        value = replay.values[name]
        axes = [at for at, size in enumerate(value.shape) if size == features]
        for at in reversed(axes if features > 1 else []):
            changed = {name: _changed(value, at, half)}
            modes = (False, True)
            alike = all(
                _same(
                    replay.outputs(silent=half, training=mode),
                    replay.outputs(1.0, changed, half, training=mode),
                )
                for mode in modes
            )
            if alike and not all(
                _same(replay.outputs(training=mode), replay.outputs(1.0, changed, training=mode))
                for mode in modes
            ):
                found[name] = at
                break
    return found


@dataclass(frozen=True)
class Further:
    """What a weight layer's further parameters and buffers do, beside its weight and bias.

    Attributes:
        belonging: those that belong to units or features, by name.
        silenced: whether dead units emit zeros once their weights, biases and these are zero.
        connecting: whether they connect units with features that no weight connects.
    """

    belonging: dict[str, Belonging]
    silenced: bool
    connecting: bool


def further_tensors(module: nn.Module) -> list[str]:
    """Names of a weight layer's floating-point parameters and buffers besides weight and bias."""
    kind = known_kind(module)
    return [name for name in tensors_of(module) if name not in (kind.weight, kind.bias)]


def study_further(replay: Replay) -> Further:
    """Find what the further tensors of a weight layer do."""
    module = replay.module
    kind, names = known_kind(module), further_tensors(module)
    units, features = size_of(module)
    by_unit = unit_axes(replay, names, units, kind.activity_axis)
    by_feature = feature_axes(replay, names, features)
    belonging = {
        name: Belonging(by_unit.get(name), by_feature.get(name))
        for name in names
        if name in by_unit or name in by_feature
    }
    dead, cut = _half(units), _half(features)
    every = torch.ones(features, dtype=torch.bool)
    values = {kind.weight: _without(replay.values[kind.weight], between(module, dead, every))}
    if kind.bias in replay.values:
        values[kind.bias] = _without(replay.values[kind.bias], dead)
    for name, axis in by_unit.items():
        values[name] = _changed(replay.values[name], axis, dead, torch.zeros_like(replay.values[name]))
    silenced = not any(
        bool((tensor.index_select(kind.activity_axis, dead.nonzero().flatten().to(tensor.device)) != 0).any())
        for training in (False, True)
        for tensor in replay.outputs(values=values, training=training)
    )
    apart = {kind.weight: _without(replay.values[kind.weight], between(module, dead, cut))}
    moved = _moves_only(
        replay.outputs(values=apart), replay.outputs(values=apart, other=cut), kind.activity_axis, ~dead
    )
    return Further(belonging, silenced, connecting=moved is False)


def acts_where_zero(replay: Replay) -> bool:
    """Whether units of a weight layer read features that they have no weight from.

    So it is where the forward standardises or centres the weight, which gives synapses of zero another value. That
    features are given with the opposite sign leaves alone what is measured of them all, such as a scale.
    """
    module = replay.module
    kind = known_kind(module)
    units, features = size_of(module)
    dead, cut = _half(units), _half(features)
    apart = {kind.weight: _without(replay.values[kind.weight], between(module, dead, cut))}
    return any(
        _moves_only(
            replay.outputs(values=apart, training=training),
            replay.outputs(values=apart, negated=cut, training=training),
            kind.activity_axis,
            ~dead,
        )
        is False
        for training in (False, True)
    )


def replayed(
    model: nn.Module,
    example_inputs: Inputs,
    axes: Mapping[str, int],
    use: Callable[[str, Replay], None],
    training_paths: bool = False,
) -> None:
    """Run a network once, and call `use` with a replay of each of the named modules, at its first call.

    Args:
        model: the network.
        example_inputs: what its forward takes.
        axes: name of a module -> axis of its first tensor that counts features, from the end.
        use: what to do with a module's name and its replay.
        training_paths: whether paths that only training takes run.
    """
    modules = dict(model.named_modules())
    waiting = set(axes)

    def hook(name: str) -> Callable[..., None]:
        def run_again(module: nn.Module, args: Any, options: Any, output: Any) -> None:
            if name in waiting and next(float_tensors((args, options)), None) is not None:
                waiting.remove(name)
                use(name, Replay(module, args, options, axes[name]))

        return run_again

    with frozen(model, training_paths=training_paths):
        handles = [modules[name].register_forward_hook(hook(name), with_kwargs=True) for name in axes]
        try:
            if axes:
                run(model, example_inputs)
        finally:
            for handle in handles:
                handle.remove()


def _half(count: int) -> Bool[Tensor, "_"]:
    """About half of them, with no period: never none, never all."""
    half = torch.zeros(count, dtype=torch.bool)
    half[torch.randperm(count, generator=torch.Generator().manual_seed(3))[: count // 2]] = True
    return half


def _changed(value: Tensor, axis: int, where: Bool[Tensor, "_"], new: Tensor | None = None) -> Tensor:
    shape = [1] * value.ndim
    shape[axis] = -1
    return torch.where(where.to(value.device).view(shape), 0.3 * value if new is None else new, value)


def _without(value: Tensor, where: Bool[Tensor, "..."]) -> Tensor:
    return value.masked_fill(where.to(value.device), 0)


def _moved(before: Tensor, after: Tensor) -> Tensor:
    return ~((before == after) | (before.isnan() & after.isnan()))


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return [one.shape for one in before] == [one.shape for one in after] and not any(
        bool(_moved(*both).any()) for both in zip(before, after, strict=True)
    )


def _moves_only(before: list[Tensor], after: list[Tensor], axis: int, where: Tensor) -> bool | None:
    """Whether only the given units move; None where nothing does."""
    moves = None
    for one, other in zip(before, after, strict=True):
        if one.shape != other.shape:
            return False
        moved = _moved(one, other)
        if not moved.any():
            continue
        if moved.ndim < -axis or moved.shape[axis] != len(where):
            return False
        profile = (
            moved.any(dim=[at for at in range(-moved.ndim, 0) if at != axis]) if moved.ndim > 1 else moved
        )
        if bool((profile.cpu() & ~where).any()):
            return False
        moves = True
    return moves


def _output_axis(
    replay: Replay, scale: float, before: list[Tensor], half: Tensor, training: bool
) -> int | None:
    """The axis of the output that counts units: along which only those move of which the features were changed."""
    if replay.features != len(half):
        return None
    after = replay.outputs(scale, other=half, training=training)
    deepest = max((one.ndim for one in before), default=0)
    for axis in (replay.axis, *(axis for axis in range(-1, -deepest - 1, -1) if axis != replay.axis)):
        if _moves_only(before, after, axis, half):
            return axis
    return None


@contextmanager
def _replaced(module: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Other values in a module's tensors, and afterwards the storage that they had."""
    tensors = tensors_of(module)
    old = {name: tensors[name].data for name in values}
    try:
        for name, value in values.items():
            # a forward may write into its buffers
            tensors[name].data = value.clone()
        yield
    finally:
        for name, data in old.items():
            tensors[name].data = data


def _seed(module: nn.Module) -> None:
    """Seed what a module draws from, where it lies; `torch.manual_seed` costs more than many modules do."""
    if all(tensor.device.type == "cpu" for tensor in tensors_of(module).values()):
        torch.default_generator.manual_seed(2)
    else:
        torch.manual_seed(2)


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    try:
        for part in modes:
            part.training = training
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
