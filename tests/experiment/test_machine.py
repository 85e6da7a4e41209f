import json
import platform
import subprocess
import sys

import pytest
import torch

from dpap.experiment.errors import UserError
from dpap.experiment.machine import choose_device, describe_machine, repeatable


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
        with pytest.raises(UserError, match=wrong):
            choose_device(wrong)


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
