"""Plain files beside the network that they hold."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from torch import Tensor, nn

from dpap.anatomy.frozen import frozen
from dpap.export.onnx_check import Difference
from dpap.export.report import Comparison, ExportError
from dpap.surgery.plain import plain_files


def compare_plain(path: Path, model: nn.Module, x: Tensor) -> Comparison:
    """What the script that `dpap.save(..., format="plain")` wrote builds, on the same input.

    Args:
        path: of the weights; the script takes modules of torch.nn in turn, or its factory.
        model: the network.
        x: samples along the first axis.

    Raises:
        ExportError: where it computes something else.
    """
    builder = plain_files(path).builder
    spec = spec_from_file_location(builder.stem, builder)
    if spec is None or spec.loader is None:
        raise ExportError(f"{builder} cannot be imported")
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    found = Difference(model)
    with torch.no_grad(), frozen(model):
        theirs = script.load(device=x.device.type)(x)
        found.outputs({"output": theirs.cpu().numpy()}, {"output": model(x)})
    comparison = found.comparison(len(x))
    if not comparison.agrees:
        raise ExportError(f"what {builder} builds does not compute what the network computes: {comparison}")
    return comparison
