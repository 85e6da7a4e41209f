"""`dpap export`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from dpap.cli.hub import write_hub_run, write_plain_run
from dpap.cli.shared import MADE, add_imports_flag, check_folder, check_output, typed_flags
from dpap.experiment.errors import UserError, blame
from dpap.experiment.using.kept import read_kept
from dpap.export import ExportError, export_nir, export_onnx

OUT = {"onnx": "model.onnx", "nir": "model.nir", "plain": "plain.safetensors", "hub": "hub"}
"""Where each lies in the run folder."""
OF = {
    "--step": ("onnx",),
    "--pool-spikes": ("nir",),
    "--sum-pooling": ("nir",),
    "--licence": ("hub",),
    "--licence-file": ("hub",),
    "--tags": ("hub",),
    "--overwrite": ("hub",),
    "--samples": ("onnx", "nir", "plain"),
}
"""Which exports a flag is for."""
WHY = {
    ("nir", "--step"): "a NIR file is of one timestep anyhow",
    ("hub", "--samples"): "a hub folder is not compared",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` the subcommand's flags."""
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument(
        "--to",
        choices=["onnx", "nir", "plain", "hub"],
        required=True,
        help="ONNX for any runtime, NIR for neuromorphic chips, plain for PyTorch without dpap, hub: a folder to push",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="the file; RUN/model.onnx, RUN/model.nir, RUN/plain.safetensors or the folder RUN/hub if not given; "
        f"{MADE}",
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
    parser.add_argument("--licence", metavar="NAME", help="hub: of the network, as hubs list it, such as mit")
    parser.add_argument("--licence-file", metavar="FILE", help="hub: the licence's text")
    parser.add_argument("--tags", type=list[str], default=[], help="hub: further tags of the card")
    parser.add_argument("--overwrite", action="store_true", help="hub: replace an earlier export")
    parser.add_argument("--samples", type=int, default=64, help="of the test split, for the comparison")
    parser.add_argument("--data.root", metavar="FOLDER", help="where the data lies now, if it was moved")
    add_imports_flag(parser)


def run(parser: ArgumentParser, given: Namespace, command: str) -> None:
    """Write the file and print how far it differs."""
    folder = Path(given.run)
    if given.samples < 1:
        raise UserError(f"--samples must be at least 1; got {given.samples}")
    for flag in typed_flags(parser, command):
        if given.to not in OF.get(flag, (given.to,)):
            why = WHY.get((given.to, flag), f"got --to {given.to}")
            raise UserError(f"{flag} is for --to {' or '.join(OF[flag])}; {why}: leave it out")
    if given.to == "hub" and None in (given.licence, given.licence_file):
        raise UserError("a hub folder names its licence: give --licence NAME and --licence-file FILE")
    if given.out is not None and given.to == "hub":
        check_folder(Path(given.out), "a hub export")
    elif given.out is not None:
        check_output("--out", Path(given.out))
    kept = read_kept(folder, root=given.data.root, allow_imports=given.allow_imports)
    example = kept.test_samples(given.samples)
    path = folder / OUT[given.to] if given.out is None else Path(given.out)
    with blame("the export"):
        try:
            if given.to == "onnx":
                print(export_onnx(kept.model, example, path, step=given.step))
            elif given.to == "plain":
                print(write_plain_run(kept, example, path))
            elif given.to == "hub":
                text = Path(given.licence_file)
                print(write_hub_run(kept, folder, path, given.licence, text, given.tags, given.overwrite))
            else:
                pool_spikes, sum_pooling = given.pool_spikes, given.sum_pooling
                print(export_nir(kept.model, example, path, pool_spikes=pool_spikes, sum_pooling=sum_pooling))
        except ExportError as error:
            raise UserError(f"the export: {error}") from error
