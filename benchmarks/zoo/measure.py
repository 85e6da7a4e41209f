"""One network: wiring found, half of the units removed, and a verdict on what the network then computes."""

import copy
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from halving import depthwise_weights, mask_half, train_norms
from torch import Tensor, nn

from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import Inputs, float_tensors, run
from dpap.metrics import parameters
from dpap.metrics.compute import counted
from dpap.surgery import CompactionError, Masks, Silence
from dpap.surgery.compact import remove_dead
from dpap.surgery.trial import try_removal

Row = dict[str, Any]
Example = tuple[nn.Module, Inputs]
Maker = Callable[[], Example]
STRENGTHS = (4, 16, 64, 256)
"""Factors of new inputs, tried until something comes out of a spiking network."""
TOLERANCE = {"double": 1e-6, "single": 1e-3}
"""Largest accepted difference, relative to the largest output."""


def measure(maker: Maker) -> Row:
    """The row of a network: its verdict is "ok", "refused" with a reason, "WRONG" or "unclear"."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # it hides attention from the counter of MACs
    model, inputs = maker()
    model.eval()
    train_norms(model)
    row: Row = {"parameters": parameters(model), "macs": macs(model, inputs)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    forwards = 0

    def count(*_: Any) -> None:
        nonlocal forwards
        forwards += 1

    counting = model.register_forward_pre_hook(count)
    start = time.process_time()
    try:
        wiring = find_wiring(model, inputs)
        row["staining_forwards"] = forwards
        try_removal(model, wiring, inputs)
    except (ValueError, TypeError) as error:
        return row | {"verdict": "refused", "reason": f"{type(error).__name__}: {error}"}
    finally:
        row |= {"wiring_seconds": time.process_time() - start, "forwards": forwards}
        counting.remove()
    changed = [name for name, tensor in model.state_dict().items() if not _same(tensor, before.get(name))]
    if changed:
        row |= {"verdict": "WRONG", "reason": f"finding the wiring changed {', '.join(changed[:3])}"}
    return halve(model, inputs, wiring) | row


def halve(model: nn.Module, inputs: Inputs, wiring: Wiring) -> Row:
    """What comes of it when half of the units are removed."""
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    may_die = sum(weights for _, weights in masks.weights(wiring).values()) + depthwise_weights(wiring, masks)
    layers = wiring.layers.values()
    row: Row = {
        "prunable": may_die / sum(tensor.numel() for tensor in model.parameters() if tensor.ndim > 1),
        "layers": len(layers),
        "layers_prunable": sum(layer.prunability == "prunable" for layer in layers),
        "reasons": Counter(f"{layer.prunability}: {layer.reason}" for layer in layers if layer.reason),
    }
    if not may_die:
        reasons = Counter({layer.reason: 0 for layer in layers})
        for layer in layers:
            reasons[layer.reason] += layer.weights
        return row | {"verdict": "refused", "reason": f"nothing can die: {reasons.most_common(1)[0][0]}"}
    mask_half(wiring, masks)
    for layer in layers:
        if layer.prunability == "silenced":
            masks.units[layer.name][torch.randperm(layer.units)[: layer.units // 2]] = False
    Silence(model, wiring, []).impose(masks)
    leak = leaking(model, inputs, wiring, masks)
    silent = copy.deepcopy(model)
    try:
        kept, compacted = remove_dead(model, wiring, masks, [], inputs)
    except CompactionError as error:
        return row | {"verdict": "refused", "reason": f"{error}"}
    # before anything else runs: observers take notice of every forward
    row["difference"], row["precision"] = difference(silent, model, inputs)
    row |= {
        "units_removed": sum(wiring.layers[name].units - len(units) for name, units in kept.units.items()),
        "parameters_after": parameters(model),
        "macs_after": macs(model, inputs),
        "removal_seconds": compacted.seconds,
    }
    if not row["difference"] <= TOLERANCE[row["precision"]]:
        return row | {"verdict": "WRONG", "reason": f"outputs differ by {row['difference']:.1e}"}
    return row | ({"verdict": "WRONG", "reason": leak} if leak else {"verdict": "ok", "reason": ""})


def leaking(model: nn.Module, inputs: Inputs, wiring: Wiring, masks: Masks) -> str:
    """Where features of which every source is dead still receive something on new inputs, or ""."""
    found: list[str] = []

    def check(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        layer = wiring.layers[name]
        dead = ~masks.features(layer)

        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            if given and isinstance(given[0], Tensor):
                activity = given[0].movedim(layer.kind.activity_axis, -1)
                if activity.shape[-1] == len(dead) and bool(activity[..., dead].any()):
                    found.append(name)

        return hook

    hooks = [layer.module.register_forward_pre_hook(check(name)) for name, layer in wiring.layers.items()]
    try:
        with torch.no_grad():
            reset_state(model)
            run(model, fresh(inputs, 1))
    finally:
        for hook in hooks:
            hook.remove()
    return f"dead units still send activity to {', '.join(dict.fromkeys(found))}" if found else ""


def difference(silent: nn.Module, compact: nn.Module, inputs: Inputs) -> tuple[float, str]:
    """Largest difference of the outputs and in which precision: double, unless the network runs in single only."""
    try:
        return relative_difference(silent, compact, inputs, torch.float64), "double"
    except RuntimeError:
        return relative_difference(silent, compact, inputs, torch.float32), "single"


def relative_difference(silent: nn.Module, compact: nn.Module, inputs: Inputs, dtype: torch.dtype) -> float:
    """Relative to the largest output, on new inputs, stronger ones until something comes out.

    Raises:
        ValueError: every output is 0, so that nothing was compared.
    """
    both = [copy.deepcopy(model).to(dtype).eval() for model in (silent, compact)]
    for strength in STRENGTHS:
        new = fresh(inputs, strength, dtype)
        outputs = []
        for model in both:
            reset_state(model)
            torch.manual_seed(0)
            with torch.no_grad():
                outputs.append(list(float_tensors(run(model, new))))
        largest = max((float(tensor.abs().max()) for tensor in outputs[0] if tensor.numel()), default=0.0)
        if largest > 0:
            apart = [
                float((one - other).abs().max()) for one, other in zip(*outputs, strict=True) if one.numel()
            ]
            return max(apart) / largest
    raise ValueError("every output is 0, so nothing was compared")


def fresh(inputs: Any, strength: float, dtype: torch.dtype | None = None) -> Any:
    """New inputs of the same form: numbers at random, and tokens or indices in another order."""
    if isinstance(inputs, Tensor):
        if inputs.is_floating_point():
            return strength * torch.rand_like(inputs, dtype=dtype)
        return inputs.flatten()[torch.randperm(inputs.numel())].view_as(inputs)
    if isinstance(inputs, dict):
        return {key: fresh(value, strength, dtype) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return type(inputs)(fresh(value, strength, dtype) for value in inputs)
    return inputs


def macs(model: nn.Module, inputs: Inputs) -> int:
    """Products of one forward of the example inputs."""
    with torch.no_grad(), counted(model) as counter:
        reset_state(model)
        run(model, inputs)
    return counter.get_total_flops() // 2


def _same(now: Tensor, before: Tensor | None) -> bool:
    return before is not None and now.shape == before.shape and torch.equal(now, before)
