import json
import platform
import subprocess
import sys

import pytest
import torch

from dpap.experiment.config import ExperimentConfig, overridden
from dpap.experiment.errors import UserError
from dpap.experiment.learner import build_model
from dpap.experiment.machine import choose_device, describe_machine, enough_memory, repeatable


def test_torch_is_as_before_even_after_an_error() -> None:
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), repeatable(1):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        raise RuntimeError("inside")
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_devices_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    for wrong in ("cuda:99", "gpu", "meta"):
        with pytest.raises(UserError, match=f"training.device .*{wrong}"):
            choose_device(wrong)
        with pytest.raises(UserError, match=f"^--device .*{wrong}"):
            choose_device(wrong, "--device")


class Sizes:
    """Of digits."""

    input_shape, classes = (1, 8, 8), 10


@pytest.mark.parametrize("layers", ["12FC-10FC", "4C3-10FC", "resnet20"])
@pytest.mark.parametrize("width", [1e11, 1e18, 1e308])
def test_a_network_that_no_memory_holds_is_one_message(layers: str, width: float) -> None:
    config = overridden(ExperimentConfig(), {"network": {"layers": layers, "width": width}})
    with pytest.raises(
        UserError, match=rf"more memory .*lower network.width .*network.layers \(now {layers}\)"
    ):
        build_model(config, Sizes(), torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (MemoryError(), ""),
        (MemoryError("Unable to allocate 3.00 TiB for an array"), ""),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0"),
            ", 20.00 GiB at once",
        ),
        (
            RuntimeError("DefaultCPUAllocator: you tried to allocate 3072000000000 bytes."),
            ", 3,072.0 GB at once",
        ),
    ],
)
def test_memory_that_cannot_be_had_is_told_from_other_errors(error: Exception, size: str) -> None:
    said = f"^training: more memory is needed than there is{size}; lower batches$"
    with pytest.raises(UserError, match=said), enough_memory("training", "batches"):
        raise error
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), TypeError("'int' is no str")):
        with pytest.raises(type(other), match=str(other)), enough_memory("training", "batches"):
            raise other


def test_the_machine_is_described_without_its_name() -> None:
    described = json.dumps(describe_machine(torch.device("cpu")))
    assert torch.__version__ in described
    assert platform.node() not in described


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_tensors_take_no_new_pages_once_warm() -> None:
    program = (
        "import resource, torch\n"
        "from dpap.experiment.machine import keep_freed_memory\n"
        "assert keep_freed_memory()\n"
        "for _ in range(10):\n"
        "    torch.ones(20_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "torch.ones(20_000_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    faults = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(faults.stdout) < 1000  # 80 MB are 19532 pages
