"""What an export wrote, and how it compares with the network in PyTorch."""

from dataclasses import dataclass, replace
from pathlib import Path

MOST_FLIPPED = 1e-3
"""Largest share of spikes that rounding may flip: each flip changes what comes after it."""
TOLERANCE = 1e-4
"""Largest difference of outputs where no spike flips, relative to the largest output."""
ROUNDINGS = 8
"""So many units of the last place it may be at least, for networks in half precision: a layer or two round each."""


class ExportError(RuntimeError):
    """The network cannot be written in that format, or the file would not compute what the network computes.

    Example:
        >>> import torch, dpap
        >>> from torch import nn
        >>> from dpap.spiking import LIF
        >>> model = nn.Sequential(nn.Linear(8, 4), LIF(reset="soft"), nn.Linear(4, 2))
        >>> try:
        ...     dpap.export_nir(model, torch.rand(5, 3, 8), "small.nir")
        ... except (dpap.ExportError, ImportError):  # a reset that NIR has no node for; or no nir installed
        ...     print("not written")
        not written
    """


@dataclass(frozen=True)
class Comparison:
    """A file beside the network.

    Attributes:
        samples: how many were compared.
        largest_difference: of outputs.
        largest_output: of the network, in absolute value.
        flipped_spikes: neuron-timesteps at which only one of both fires.
        spikes: neuron-timesteps that were compared.
        fired: at how many of them the network's neurons fire.
        precision: unit of the last place of 1, in the network's coarsest numbers; 0 where it is not known.
    """

    samples: int
    largest_difference: float
    largest_output: float
    flipped_spikes: int
    spikes: int
    fired: int
    precision: float = 0.0

    def __str__(self) -> str:
        text = (
            f"on {self.samples} samples, largest difference {self.largest_difference:.2g} of outputs up to "
            f"{self.largest_output:.3g}"
        )
        if self.spikes:
            text += f", {self.flipped_spikes:,} of {self.spikes:,} spikes flipped"
        if self.spikes and not self.fired:
            text += "; no neuron fires on this example, so little was compared: give real samples"
        return text

    @property
    def agrees(self) -> bool:
        """Whether what differs is rounding."""
        if self.flipped_spikes:
            return self.flipped_spikes <= max(1, MOST_FLIPPED * self.spikes)
        tolerance = max(TOLERANCE, ROUNDINGS * self.precision)
        return self.largest_difference <= tolerance * max(1.0, self.largest_output)


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        path: of the file.
        format: "ONNX" or "NIR".
        nodes: of its graph.
        bytes: of the file.
        inputs: name -> shape, as text.
        comparison: with the network; None where what runs the file is not installed.
        checked_by: what ran the file, or why nothing did.

    Example:
        >>> import dpap
        >>> from pathlib import Path
        >>> report = dpap.ExportReport(Path("small.onnx"), "ONNX", 3, 412, {"input": "[batch, 8]"})
        >>> print(report.unchecked("no runtime"))
        small.onnx: ONNX, 3 nodes, 412 bytes; reads input [batch, 8]
        not compared with PyTorch: no runtime
    """

    path: Path
    format: str
    nodes: int
    bytes: int
    inputs: dict[str, str]
    comparison: Comparison | None = None
    checked_by: str = ""

    def __str__(self) -> str:
        reads = ", ".join(f"{name} {shape}" for name, shape in self.inputs.items())
        lines = [f"{self.path}: {self.format}, {self.nodes:,} nodes, {self.bytes:,} bytes; reads {reads}"]
        if self.comparison is None:
            lines.append(f"not compared with PyTorch: {self.checked_by}")
        else:
            lines.append(f"{self.checked_by} beside PyTorch {self.comparison}")
        return "\n".join(lines)

    def unchecked(self, why: str) -> "ExportReport":
        """Without a comparison."""
        return replace(self, checked_by=why)

    def compared(self, comparison: Comparison, by: str) -> "ExportReport":
        """With a comparison.

        Raises:
            ExportError: where more than rounding differs.
        """
        if not comparison.agrees:
            raise ExportError(
                f"{self.path} is not written, for it does not compute what the network computes: {by} beside PyTorch "
                f"{comparison}"
            )
        return replace(self, comparison=comparison, checked_by=by)
