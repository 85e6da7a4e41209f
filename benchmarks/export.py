"""Compact networks as ONNX and NIR files: how far they differ, how big they are, and how fast onnxruntime runs them.

    python benchmarks/export.py --data.root DATA runs/mine recipes/mnist_snn_2conv2fc.yaml

Each network is the kept one of a finished run, or, of a recipe, untrained with a random half of its units removed. It
stands beside the dense network of the same configuration. The export compares every file with PyTorch on `--samples`
test samples (ONNX: and on twice as many). Latency: PyTorch and onnxruntime, dense and compact, take turns in one
process, with equally many threads, on test samples.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shrinking import halved
from timing import alternate, arguments_of, compared, report, set_up, text_table
from torch import Tensor, nn

from dpap import ExportError, ExportReport, export_nir, export_onnx
from dpap.data import load_data
from dpap.experiment.config import load_config
from dpap.experiment.learner import build_model, example_of
from dpap.experiment.using.kept import read_kept
from dpap.export.onnx_check import session

BATCHES = (1, 64)
Row = dict[str, Any]


def read(path: Path, root: str | None) -> tuple[str, nn.Module, nn.Module, Tensor]:
    """What a network is called, the dense and the compact one, and the first of its test samples.

    Args:
        path: of a run folder or of a recipe.
        root: where the data lies.
    """
    device = torch.device("cpu")
    if path.is_dir():
        kept = read_kept(path, root=root)
        dense = build_model(kept.config, kept.data, device).eval()
        what = f"{kept.config.data.name} {kept.config.network.layers}, {kept.config.name}"
        return what, dense, kept.model, kept.test_samples(max(BATCHES))
    config = load_config(path)
    data = load_data(replace(config.data, root=root or config.data.root))
    dense = build_model(config, data, device).eval()
    small = halved(build_model(config, data, device), example_of(data, device, 4)).eval()
    return f"{config.name}, half removed", dense, small, next(iter(data.test.batches(max(BATCHES))))[0]


def samples_of(example: Tensor, count: int) -> Tensor:
    """The first samples, of events too."""
    return example[:, :count] if example.ndim == 5 else example[:count]


def written(model: nn.Module, example: Tensor, folder: Path, name: str) -> dict[str, ExportReport | str]:
    """The report of each format, or why there is none."""
    files: dict[str, Callable[[], ExportReport]] = {
        "ONNX": lambda: export_onnx(model, example, folder / f"{name}.onnx"),
        "ONNX, a timestep": lambda: export_onnx(model, example, folder / f"{name}-step.onnx", step=True),
        "NIR": lambda: export_nir(model, example, folder / f"{name}.nir", pool_spikes=True),
    }
    found: dict[str, ExportReport | str] = {}
    for kind, write in files.items():
        try:
            found[kind] = write()
        except ExportError as error:
            found[kind] = str(error)
    return found


def in_onnxruntime(path: Path, example: Tensor) -> Callable[[], object]:
    """A run of a file."""
    runner = session(path)
    (given,) = runner.get_inputs()
    feed = {given.name: example.contiguous().numpy()}
    return lambda: runner.run(None, feed)


def latency(
    dense: nn.Module, small: nn.Module, files: Sequence[Path], example: Tensor, rounds: int
) -> dict[str, Row]:
    """Milliseconds of each candidate at each batch size; the ratio is beside the dense network in PyTorch."""
    rows: dict[str, Row] = {}
    for batch in BATCHES:
        given = samples_of(example, batch)
        candidates = {
            "dense, PyTorch": lambda given=given: dense(given),  # type: ignore[misc]
            "compact, PyTorch": lambda given=given: small(given),  # type: ignore[misc]
            "dense, onnxruntime": in_onnxruntime(files[0], given),
            "compact, onnxruntime": in_onnxruntime(files[1], given),
        }
        with torch.no_grad():
            seconds = alternate(candidates, rounds, torch.device("cpu"))
        rows |= {f"{name}, batch {batch}": row for name, row in compared(seconds, "dense, PyTorch").items()}
    return rows


def measure(path: Path, arguments: Any) -> Row:
    """One network."""
    name, dense, small, example = read(path, arguments.root)
    checked = samples_of(example, arguments.samples)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        before = export_onnx(dense, samples_of(example, 4), folder / "dense.onnx")
        files = written(small, checked, folder, "compact")
        times: dict[str, Row] = {}
        if isinstance(files["ONNX"], ExportReport):
            times = latency(dense, small, [before.path, files["ONNX"].path], example, arguments.rounds)
    row: Row = {"network": name, "dense_onnx_bytes": before.bytes, "milliseconds": times, "files": {}}
    for kind, file in files.items():
        if isinstance(file, str):
            row["files"][kind] = {"refused": file}
        else:
            assert file.comparison is not None, "the comparison is what this measures"
            row["files"][kind] = {"bytes": file.bytes, "nodes": file.nodes, **vars(file.comparison)}
    return row


def file_lines(row: Row) -> list[list[str]]:
    """Lines of the table of files."""
    lines = []
    for kind, file in row["files"].items():
        if "refused" in file:
            lines.append([row["network"], kind, f"none: {file['refused'][:90]}", "", "", "", "", ""])
            continue
        before = f"{row['dense_onnx_bytes'] / 1024:,.0f}" if kind == "ONNX" else ""
        lines.append(
            [
                row["network"],
                kind,
                f"{file['largest_difference']:.1e} of {file['largest_output']:.3g}",
                f"{file['flipped_spikes']:,} of {file['spikes']:,}" if file["spikes"] else "no spikes",
                before,
                f"{file['bytes'] / 1024:,.0f}",
                f"{file['nodes']}",
                f"{file['samples']}",
            ]
        )
    return lines


def time_lines(row: Row) -> list[list[str]]:
    """Lines of the table of latencies."""
    return [
        [
            row["network"],
            name,
            f"{each['milliseconds']:.2f}",
            f"{each['ratio']:.2f}",
            f"{each['low']:.2f}-{each['high']:.2f}",
            f"{each['n']}",
        ]
        for name, each in row["milliseconds"].items()
    ]


def main() -> None:
    """Write, compare and time each network."""
    parser = arguments_of(__doc__, rounds=20)
    parser.add_argument("networks", nargs="+", type=Path, help="run folders and recipes")
    parser.add_argument("--data.root", dest="root", help="where the data lies")
    parser.add_argument("--samples", type=int, default=32, help="of the test split, for the comparison")
    arguments = parser.parse_args()
    set_up(arguments)
    rows = [measure(path, arguments) for path in arguments.networks]
    files = ["network", "format", "largest difference", "flipped spikes", "dense KiB", "KiB", "nodes", "n"]
    times = ["network", "", "ms", "speed-up", "quartiles", "n"]
    report(
        "export",
        arguments,
        {"networks": rows},
        [
            text_table(files, [line for row in rows for line in file_lines(row)]),
            text_table(times, [line for row in rows for line in time_lines(row)]),
        ],
    )


if __name__ == "__main__":
    main()
