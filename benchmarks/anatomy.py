"""Which networks can be pruned: wiring found, half of the units removed, and what the network then computes.

Every network runs in a process of its own, so that its memory is its own and a failure is one row. Norms get random
statistics and scales first, as training would give them. Half of the prunable units of every layer, drawn at
random, die; where units can only leave together, as in a residual stream, they die together. The networks before
(dead units zero) and after (dead units removed) are then compared in double precision on inputs that the removal
did not use.
"""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from networks import NETWORKS, Maker, from_timm, from_torchvision
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from timing import arguments_of, peak_bytes, report
from torch import Tensor, nn

from dpap.anatomy import Wiring, find_wiring
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import float_tensors, run
from dpap.metrics import macs, parameters
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead
from dpap.surgery.trial import try_removal

Row = dict[str, Any]


def networks(arguments: Any) -> dict[str, Maker]:
    """The chosen networks; a package that is not installed is named and left out."""
    found = dict(NETWORKS)
    for wanted, source in ((arguments.torchvision, from_torchvision), (arguments.timm, from_timm)):
        if wanted:
            try:
                found |= source()
            except ImportError as error:
                print(f"left out: {error}", file=sys.stderr)
    if arguments.only:
        found = {name: maker for name, maker in found.items() if any(part in name for part in arguments.only)}
    return found


def measure(maker: Maker, rounds: int) -> Row:
    """One row of the table."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # it hides attention from the counter of MACs
    model, inputs = maker()
    train_norms(model)
    samples, cpu = len(inputs[0]), torch.device("cpu")
    with torch.no_grad():
        model.eval()
        forward = partial(run, model, inputs)
        forward_bytes = peak_bytes(lambda: forward, cpu, steps=1)
        forward_seconds = median(timed(forward) for _ in range(max(rounds, 3)))
    find = partial(find_and_try, model, inputs)
    row: Row = {
        "parameters": parameters(model),
        "macs": macs(model, *inputs) // samples,
        "forward_seconds": forward_seconds,
        "forward_bytes": forward_bytes,
        "wiring_bytes": peak_bytes(lambda: find, cpu, steps=1),
        "wiring_seconds": median(timed(find) for _ in range(rounds)),
        "rounds": rounds,
        "samples": samples,
    }
    wiring = find()
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    may_die = sum(weights for _, weights in masks.weights(wiring).values()) + depthwise_weights(wiring, masks)
    layers = wiring.layers.values()
    row["prunable"] = may_die / sum(tensor.numel() for tensor in model.parameters() if tensor.ndim > 1)
    row["layers"] = len(layers)
    row["layers_prunable"] = sum(layer.prunability == "prunable" for layer in layers)
    row["not_prunable"] = {layer.name: layer.reason for layer in layers if layer.prunability != "prunable"}
    mask_half(wiring, masks)
    Silence(model, wiring, []).impose(masks)
    silent = copy.deepcopy(model)
    kept, compacted = remove_dead(model, wiring, masks, [], inputs)
    row["removal_seconds"] = compacted.seconds
    row["units_removed"] = sum(wiring.layers[name].units - len(units) for name, units in kept.units.items())
    row["units_dead"] = sum(int((~alive).sum()) for alive in masks.units.values())
    row["parameters_after"] = parameters(model)
    row["macs_after"] = macs(model, *inputs) // samples
    row["difference"], row["precision"] = difference(silent, model, inputs)
    return row


def find_and_try(model: nn.Module, inputs: tuple[Tensor, ...]) -> Wiring:
    """The wiring as `dpap.Pruner` finds it, with the result of a trial removal."""
    wiring = find_wiring(model, inputs)
    try_removal(model, wiring, inputs)
    return wiring


def depthwise_weights(wiring: Wiring, masks: Masks) -> int:
    """Weights of depthwise convolutions, which leave with the units that they filter."""
    return sum(
        tensor.numel()
        for attachment in wiring.attachments.values()
        if attachment.feeds.keys() & masks.units.keys()
        for tensor in attachment.module.parameters(recurse=False)
        if tensor.ndim > 1
    )


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def train_norms(model: nn.Module) -> None:
    """Statistics, scales and shifts unlike initial ones; no layer that begins with zeros stays so."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            module.reset_parameters()
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor, std=0.2)


def mask_half(wiring: Wiring, masks: Masks) -> None:
    """Of every kind of unit that can leave, a random half dies.

    Units that feed the same feature leave together and are one; two of these are of a kind where they have units in
    the same layers and, of layers in groups, in the same groups.
    """
    names = [name for name in masks.units if wiring.layers[name].prunability == "prunable"]
    if not names:
        return
    first = dict(zip(names, np.cumsum([0] + [wiring.layers[name].units for name in names]), strict=False))
    total = sum(wiring.layers[name].units for name in names)
    pairs = [pair for reader in wiring.readers() for pair in together(reader.feeds, first)]
    one, other = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), dtype=int)
    linked = coo_array((np.ones(len(one)), (one, other)), shape=(total, total))
    _, group = connected_components(linked, directed=False)
    places: dict[int, set[tuple[str, str, int]]] = {}
    for name in names:
        layer = wiring.layers[name]
        for unit in range(layer.units):
            place = ("unit", name, unit * layer.groups // layer.units)
            places.setdefault(group[first[name] + unit], set()).add(place)
    for reader in wiring.layers.values():
        if reader.groups > 1:
            for name in reader.feeds.keys() & first.keys():
                for feature, unit in enumerate(reader.feeds[name].tolist()):
                    if unit >= 0:
                        place = ("feature", reader.name, feature * reader.groups // reader.features)
                        places[group[first[name] + unit]].add(place)
    kinds: dict[frozenset[tuple[str, str, int]], list[int]] = {}
    for number, where in places.items():
        kinds.setdefault(frozenset(where), []).append(number)
    random = np.random.default_rng(0)
    dying = [random.choice(numbers, len(numbers) // 2, replace=False) for numbers in kinds.values()]
    dead = np.isin(group, np.concatenate(dying))
    for name in names:
        own = dead[first[name] : first[name] + wiring.layers[name].units]
        masks.units[name][torch.from_numpy(own)] = False


def together(feeds: dict[str, Tensor], first: dict[str, int]) -> Iterator[np.ndarray]:
    """Pairs of numbers of units that feed one feature; where many do, every one and the one before it."""
    last = np.full(len(next(iter(feeds.values()), ())), -1)
    for name in feeds.keys() & first.keys():
        unit = feeds[name].numpy()
        here = unit >= 0
        both = here & (last >= 0)
        yield np.stack([last[both], first[name] + unit[both]])
        last[here] = first[name] + unit[here]


def difference(silent: nn.Module, compact: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, str]:
    """Largest difference of the outputs and in which precision: double, unless the network runs in single only."""
    try:
        return relative_difference(silent, compact, inputs, torch.float64), "double"
    except RuntimeError:
        return relative_difference(silent, compact, inputs, torch.float32), "single"


def relative_difference(
    silent: nn.Module, compact: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype
) -> float:
    """Relative to the largest output, on new inputs so strong that something comes out.

    Raises:
        ValueError: every output is 0, so that nothing was compared.
    """
    both = [copy.deepcopy(model).to(dtype).eval() for model in (silent, compact)]
    for strength in (4, 16, 64, 256):
        fresh = tuple(strength * torch.rand_like(tensor, dtype=dtype) for tensor in inputs)
        outputs = []
        for model in both:
            reset_state(model)
            with torch.no_grad():
                outputs.append(list(float_tensors(run(model, fresh))))
        largest = max(float(tensor.abs().max()) for tensor in outputs[0])
        if largest > 0:
            apart = [float((one - other).abs().max()) for one, other in zip(*outputs, strict=True)]
            return max(apart) / largest
    raise ValueError("every output is 0, so nothing was compared")


def in_its_own_process(name: str, arguments: Any) -> Row:
    """The row of one network, or how it failed."""
    command = [sys.executable, __file__, "--row", name, "--rounds", str(arguments.rounds)]
    command += ["--threads", str(arguments.threads)]
    command += [f"--{package}" for package in ("torchvision", "timm") if getattr(arguments, package)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {arguments.limit} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return {"failed": lines[-1], "traceback": lines[-12:]}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


COLUMNS = (
    "network", "prunable weights", "parameters", "at 50%", "MMACs", "at 50%", "largest difference", "wiring",
    "in forwards", "extra memory", "in forwards", "removal",
)  # fmt: skip


def markdown(rows: dict[str, Row]) -> str:
    """The table."""
    lines = [COLUMNS, ["---", *["---:"] * (len(COLUMNS) - 1)]]
    for name, row in rows.items():
        if "failed" in row:
            lines.append([name, f"**failed**: {row['failed']}".replace("|", "/"), *[""] * (len(COLUMNS) - 2)])
            continue
        lines.append(
            [
                name,
                f"{row['prunable']:.1%}",
                f"{row['parameters'] / 1e6:,.2f} M",
                f"{row['parameters_after'] / 1e6:,.2f} M",
                f"{row['macs'] / 1e6:,.0f}",
                f"{row['macs_after'] / 1e6:,.0f}",
                (f"{row['difference']:.0e}" if row["difference"] else "0")
                + (" (single)" if row["precision"] == "single" else ""),
                f"{row['wiring_seconds']:.2f} s",
                f"{row['wiring_seconds'] / row['forward_seconds']:.1f}",
                f"{row['wiring_bytes'] / 1e6:,.0f} MB",
                f"{row['wiring_bytes'] / max(row['forward_bytes'], 1):.1f}",
                f"{row['removal_seconds']:.2f} s",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Run all rows and write them down."""
    parser = arguments_of(__doc__, rounds=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks with any of these in the name")
    parser.add_argument("--torchvision", action="store_true", help="torchvision's own networks, too")
    parser.add_argument("--timm", action="store_true", help="timm's own networks, too")
    parser.add_argument("--limit", type=int, default=600, help="seconds that one network may take")
    parser.add_argument("--list", action="store_true", help="only list which networks there are")
    parser.add_argument("--row", metavar="NAME", help="only this network, in this process, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    makers = networks(arguments)
    if arguments.list:
        print("\n".join(makers))
    elif arguments.row:
        print(json.dumps(measure(makers[arguments.row], arguments.rounds)))
    else:
        rows = {}
        for name in makers:
            rows[name] = in_its_own_process(name, arguments)
            print(f"{name}: {rows[name].get('failed', 'done')}", file=sys.stderr)
        table = markdown(rows)
        report("anatomy", arguments, {"rows": rows}, [table])
        (Path(arguments.out) / "anatomy.md").write_text(f"{table}\n")


if __name__ == "__main__":
    main()
