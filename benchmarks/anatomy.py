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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from halving import depthwise_weights, find_and_try, mask_half, train_norms
from networks import NETWORKS, Maker, from_timm, from_torchvision
from timing import arguments_of, peak_bytes, report
from torch import Tensor, nn
from zoo.run import explore

from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import float_tensors, run
from dpap.metrics import macs, parameters
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead

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


def timed(action: Callable[[], object]) -> float:
    """Seconds of processor time, which other work on the machine does not lengthen."""
    start = time.process_time()
    action()
    return time.process_time() - start


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
    parser.add_argument(
        "--zoo", action="store_true", help="networks of other packages instead: benchmarks/zoo"
    )
    parser.add_argument(
        "--again",
        nargs="*",
        metavar="VERDICT",
        help="of the zoo: measure those of these verdicts anew; all if none",
    )
    parser.add_argument("--limit", type=int, default=600, help="seconds that one network may take")
    parser.add_argument("--list", action="store_true", help="only list which networks there are")
    parser.add_argument("--row", metavar="NAME", help="only this network, in this process, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.zoo:
        explore(arguments.only, arguments.again, arguments.limit, list_only=arguments.list)
        return
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
