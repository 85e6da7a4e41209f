import json

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
    import platform

    told = json.dumps(describe_machine(torch.device("cpu")))
    assert torch.__version__ in told
    assert platform.node() not in told
