"""Compact networks without dpap: do they come back bit for bit from a state dict, a JSON of widths, and a script?

    python benchmarks/plain.py --threads 1

A random half of the units of every prunable layer of each network, untrained, is removed. `dpap.save(...,
format="plain")` writes what remains; another process, in which `import dpap` fails, runs the script that was written
with it on the same inputs. Needs torchvision, timm, transformers and spikingjelly; what is not installed is left out.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from halving import find_and_try, mask_half, train_norms
from networks import load_torchvision
from timing import arguments_of, report, set_up, text_table
from torch import nn

import dpap
from dpap.anatomy.hidden_state import reset_state
from dpap.anatomy.pytrees import Inputs, float_tensors, run
from dpap.metrics import parameters
from dpap.surgery import Masks, Silence
from dpap.surgery.compact import remove_dead

ALONE = """
import sys
sys.modules["dpap"] = None  # `import dpap` fails
import torch
torch.set_num_threads({threads})
library = torch.library.Library("torchvision", "DEF")  # its networks need none of its compiled operators
for operator in ("nms", "qnms"):
    library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.path.insert(0, {folder!r})
from small_builder import load
{imports}
model = load({build})
inputs = torch.load({folder!r} + "/inputs.pt")
with torch.no_grad():
    output = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
output = output if isinstance(output, torch.Tensor) else output[0]
torch.save(output, {folder!r} + "/output.pt")
"""


@dataclass(frozen=True)
class Network:
    """A network of another package.

    Attributes:
        build: the factory, "module:callable", called with `arguments`.
        inputs: of its forward.
        code: an expression that builds it, where no such factory does, and the imports that it needs.
    """

    build: str | None
    inputs: Callable[[], Inputs]
    arguments: dict[str, Any] = field(default_factory=dict)
    code: tuple[str, str] = ("", "")

    def made(self) -> nn.Module:
        """The dense network."""
        if self.build is None:
            names: dict[str, Any] = {}
            exec(self.code[1], names)
            model: nn.Module = eval(self.code[0], names)()
            return model
        module, name = self.build.split(":")
        made: nn.Module = getattr(import_module(module), name)(**self.arguments)
        return made


def images(side: int = 64, channels: int = 3) -> Callable[[], Inputs]:
    """Two images."""
    return lambda: (torch.rand(2, channels, side, side),)


NETWORKS = {
    "torchvision resnet18": Network("torchvision.models:resnet18", images(), {"num_classes": 10}),
    "torchvision mobilenet_v3_small": Network("torchvision.models:mobilenet_v3_small", images()),
    "torchvision shufflenet_v2_x1_0": Network("torchvision.models:shufflenet_v2_x1_0", images()),
    "timm efficientnet_b0": Network("timm:create_model", images(), {"model_name": "efficientnet_b0"}),
    "timm convnext_atto": Network("timm:create_model", images(), {"model_name": "convnext_atto"}),
    "timm vit_tiny_patch16_224": Network(
        "timm:create_model", images(224), {"model_name": "vit_tiny_patch16_224"}
    ),
    "transformers BERT": Network(
        None,
        lambda: {"input_ids": torch.randint(5, 999, (2, 16))},
        code=(
            "lambda: BertForSequenceClassification(BertConfig(vocab_size=1000, hidden_size=128, "
            "num_hidden_layers=4, num_attention_heads=4, intermediate_size=512))",
            "from transformers import BertConfig, BertForSequenceClassification",
        ),
    ),
    "transformers BERT, masked words (tied)": Network(
        None,
        lambda: {"input_ids": torch.randint(5, 999, (2, 16))},
        code=(
            "lambda: BertForMaskedLM(BertConfig(vocab_size=1000, hidden_size=128, "
            "num_hidden_layers=4, num_attention_heads=4, intermediate_size=512))",
            "from transformers import BertConfig, BertForMaskedLM",
        ),
    ),
    "SpikingJelly spiking VGG-11": Network(
        None,
        lambda: (2 * torch.rand(4, 2, 3, 32, 32),),
        code=(
            "build",
            "from spikingjelly.activation_based import functional, neuron, surrogate\n"
            "from spikingjelly.activation_based.model.spiking_vgg import spiking_vgg11_bn\n"
            "def build():\n"
            "    options = {'surrogate_function': surrogate.ATan(), 'v_threshold': 0.3}\n"
            "    model = spiking_vgg11_bn(spiking_neuron=neuron.IFNode, **options)\n"
            "    functional.set_step_mode(model, 'm')\n"
            "    return model\n",
        ),
    ),
}


def halved(model: nn.Module, inputs: Inputs) -> nn.Module:
    """The network without half of its units."""
    train_norms(model)
    wiring = find_and_try(model, inputs)
    masks = Masks.all_alive(wiring, synapses=False, timesteps=False)
    mask_half(wiring, masks)
    silence = Silence(model, wiring, [])
    silence.impose(masks)
    remove_dead(model, wiring, masks, [], inputs)
    silence.remove()
    return model


def measure(network: Network, threads: int) -> dict[str, Any]:
    """One network."""
    torch.manual_seed(0)
    model, inputs = network.made().eval(), network.inputs()
    before = parameters(model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        dense = dpap.save(model, folder / "dense.safetensors").stat().st_size
        halved(model, inputs)
        path = dpap.save(
            model, folder / "small.safetensors", "plain", build=network.build, arguments=network.arguments
        )
        reset_state(model)
        with torch.no_grad():
            expected = next(float_tensors(run(model, inputs)))
        torch.save(inputs, folder / "inputs.pt")
        build, imports = network.code
        script = ALONE.format(threads=threads, folder=temporary, imports=imports, build=build)
        subprocess.run([sys.executable, "-c", script], check=True, cwd=temporary)
        found = torch.load(folder / "output.pt")
        return {
            "parameters_before": before,
            "parameters_after": parameters(model),
            "bytes_before": dense,
            "bytes_after": path.stat().st_size,
            "widths_bytes": (folder / "small_widths.json").stat().st_size,
            "differing": int((found != expected).sum()),
            "outputs": found.numel(),
            "largest_output": float(expected.abs().max()),
        }


def lines_of(rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Lines of the table."""
    return [
        [
            name,
            f"{row['parameters_before']:,} -> {row['parameters_after']:,}",
            f"{row['bytes_before'] / 1024:,.0f} -> {row['bytes_after'] / 1024:,.0f}",
            f"{row['widths_bytes'] / 1024:,.0f}",
            f"{row['differing']} of {row['outputs']:,}",
        ]
        for name, row in rows.items()
    ]


def chosen(arguments: argparse.Namespace) -> dict[str, Network]:
    """Networks whose name contains one of the given words."""
    words = arguments.only or [""]
    return {name: each for name, each in NETWORKS.items() if any(word in name for word in words)}


def main() -> None:
    """Write, read and compare each network."""
    parser = arguments_of(__doc__, rounds=1)
    parser.add_argument("--only", nargs="+", help="networks whose name contains one of these")
    arguments = parser.parse_args()
    set_up(arguments)
    load_torchvision()
    rows = {}
    for name, network in chosen(arguments).items():
        try:
            rows[name] = measure(network, arguments.threads)
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    table = ["network", "parameters", "weights, KiB", "widths, KiB", "outputs that differ"]
    report("plain", arguments, {"networks": rows}, [text_table(table, lines_of(rows))])


if __name__ == "__main__":
    main()
