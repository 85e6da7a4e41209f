"""`dpap export`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.cli.shared import add_imports_flag
from dpap.experiment.errors import UserError, blame
from dpap.experiment.kept import read_kept
from dpap.export import ExportError, export_nir, export_onnx


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument(
        "--to",
        choices=["onnx", "nir"],
        required=True,
        help="ONNX for any runtime, NIR for neuromorphic chips",
    )
    parser.add_argument(
        "--out", metavar="FILE", help="the file; RUN/model.onnx or RUN/model.nir if not given"
    )
    parser.add_argument(
        "--step", action="store_true", help="ONNX: one timestep, with the membranes as inputs and outputs"
    )
    parser.add_argument(
        "--pool-spikes",
        action="store_true",
        help="NIR: max pooling of spikes as pooling and neurons, which is the same",
    )
    parser.add_argument(
        "--sum-pooling", action="store_true", help="NIR: average pooling as a sum, which Norse needs"
    )
    parser.add_argument("--samples", type=int, default=64, help="of the test split, for the comparison")
    parser.add_argument("--data.root", metavar="FOLDER", help="where the data lies now, if it was moved")
    add_imports_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Write the file and print how far it differs."""
    folder = Path(given.run)
    if given.samples < 1:
        raise UserError(f"--samples must be at least 1; got {given.samples}")
    if given.to == "nir" and given.step:
        raise UserError("--step is for ONNX; a NIR file is of one timestep anyhow")
    if given.to == "onnx" and (given.pool_spikes or given.sum_pooling):
        raise UserError("--pool-spikes and --sum-pooling are for NIR; ONNX has every pooling")
    kept = read_kept(folder, root=given.data.root, allow_imports=given.allow_imports)
    example = kept.test_samples(given.samples)
    path = folder / f"model.{given.to}" if given.out is None else Path(given.out)
    with blame("the export"):
        try:
            if given.to == "onnx":
                print(export_onnx(kept.model, example, path, step=given.step))
            else:
                pool_spikes, sum_pooling = given.pool_spikes, given.sum_pooling
                print(export_nir(kept.model, example, path, pool_spikes=pool_spikes, sum_pooling=sum_pooling))
        except ExportError as error:
            raise UserError(f"the export: {error}") from error
