"""Arguments are taken out of their wrappers, or refused by name."""

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dpap.pruning.arguments import as_copies, as_inputs, as_optimizers, unwrapped


def _network(units: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(3, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Linear(units, 2))


def test_wrappers_come_off_however_many_there_are() -> None:
    model = _network()
    assert unwrapped(model) is model
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    assert unwrapped(wrapped) is model
    average = AveragedModel(model)
    assert as_copies(average, model) == (average.module,)
    assert isinstance(unwrapped(AveragedModel(torch.compile(model, backend="eager"))), nn.Sequential)


def test_distributed_wrappers_are_refused_with_the_way_out(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with pytest.raises(TypeError, match=r"\.module.* wrap it anew after every compact"):
            unwrapped(nn.parallel.DistributedDataParallel(_network()))
    finally:
        torch.distributed.destroy_process_group()


def test_copies_of_another_structure_are_refused_by_name() -> None:
    model = _network()
    assert as_copies([copy.deepcopy(model)], model) != ()
    with pytest.raises(ValueError, match=r"0\.weight: \(4, 3\) in the network, \(5, 3\) in the copy"):
        as_copies([_network(5)], model)
    with pytest.raises(ValueError, match=r"1\.running_mean: not in the copy"):
        as_copies([nn.Linear(3, 4)], model)
    bare = nn.Sequential(OrderedDict((name, copy.deepcopy(model)[int(name)]) for name in ("0", "1", "3")))
    with pytest.raises(ValueError, match="2: ReLU in the network, not in the copy"):
        as_copies([bare], model)
    with pytest.raises(ValueError, match="shares its parameters"):
        as_copies([model], model)


def test_inputs_come_as_a_tensor_a_tuple_or_keywords() -> None:
    model, example = _network(), torch.rand(2, 3)
    assert as_inputs(example, model) == (example,)
    assert as_inputs((example, 3), model) == (example, 3)
    assert as_inputs({"images": example}, model) == {"images": example}
    assert as_inputs([example, (example, 3)], model) == [(example,), (example, 3)]
    with pytest.raises(ValueError, match="at least one example; got an empty list"):
        as_inputs([], model)
    with pytest.raises(TypeError, match="a list of several such examples; got str"):
        as_inputs([example, "images"], model)
    with pytest.raises(TypeError, match="a list of several such examples; got list"):
        as_inputs([[example]], model)
    with pytest.raises(ValueError, match=r"are on meta, the network is on cpu: move them with \.to\('cpu'\)"):
        as_inputs({"images": example.to("meta")}, model)


def test_optimizers_come_as_one_several_or_none() -> None:
    parameters: list[Tensor] = [nn.Parameter(torch.rand(2))]
    one = torch.optim.SGD(parameters, 0.1)
    assert (
        as_optimizers(None) == () and as_optimizers(one) == (one,) and as_optimizers([one, one]) == (one, one)
    )
