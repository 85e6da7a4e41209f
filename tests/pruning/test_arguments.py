"""Arguments are taken out of their wrappers, or refused by name."""

import copy
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import dpap
from dpap.pruning.arguments import (
    as_copies,
    as_inputs,
    as_optimizers,
    check_call,
    check_trained,
    known_optimizers,
    unwrapped,
)


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


def test_the_network_is_found_in_a_wrapper_of_several_processes(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        network = _network()
        assert unwrapped(nn.parallel.DistributedDataParallel(network)) is network
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
    assert as_inputs([[example]], model) == [([example],)]
    with pytest.raises(ValueError, match=r"are on meta, the network is on cpu: move them with \.to\('cpu'\)"):
        as_inputs({"images": example.to("meta")}, model)


def test_optimizers_come_as_one_several_or_none() -> None:
    parameters: list[Tensor] = [nn.Parameter(torch.rand(2))]
    one = torch.optim.SGD(parameters, 0.1)
    assert as_optimizers(None) == () and as_optimizers(one) == (one,) and as_optimizers([one, one]) == (one,)


class Accelerated(torch.optim.Optimizer):
    """As Accelerate wraps an optimizer: a subclass, of which nothing is initialised."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    state = property(lambda self: self.optimizer.state)
    param_groups = property(lambda self: self.optimizer.param_groups)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: object = None) -> None:
        self.optimizer.step()


class Wrapped:
    """As Lightning and DeepSpeed wrap an optimizer: no optimizer of torch."""

    def __init__(self, optimizer: object) -> None:
        self._optimizer = optimizer

    optimizer = property(lambda self: self._optimizer)

    def zero_grad(self) -> None: ...

    def step(self) -> None: ...


def test_optimizers_come_out_of_their_wrappers() -> None:
    one = torch.optim.SGD([nn.Parameter(torch.rand(2))], 0.1)
    for wrapped in (Accelerated(one), Wrapped(one), Wrapped(Accelerated(one)), [Wrapped(one), one]):
        assert as_optimizers(wrapped)[0] is one
    assert as_optimizers([Wrapped(one), one]) == (one,)


def test_a_network_under_a_wrapped_optimizer_is_pruned_as_under_its_own() -> None:
    def survival(wrap: type) -> object:
        torch.manual_seed(0)
        model = _network(16)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        wrapped = wrap(optimizer)
        config = dpap.PruningConfig(target=0.5, end_epoch=2, deaths_per_epoch=2, observe_every=1)
        pruner = dpap.Pruner(model, torch.rand(4, 3), wrapped, config)
        for _ in range(2):
            for _ in range(4):
                optimizer.zero_grad()
                model(torch.rand(8, 3)).square().sum().backward()
                (wrapped if wrap is Accelerated else optimizer).step()
            pruner.step()
        pruner.compact()
        return pruner.survival()

    assert survival(Accelerated) == survival(Wrapped) == survival(lambda optimizer: optimizer)


def test_what_is_no_optimizer_is_refused_with_what_to_give() -> None:
    model = _network()
    one = torch.optim.SGD(model.parameters(), 0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(one)
    for scheduler in (torch.optim.lr_scheduler.StepLR(one, 1), plateau):
        with pytest.raises(
            TypeError, match=rf"the scheduler {type(scheduler).__name__}: give its \.optimizer"
        ):
            as_optimizers(scheduler)
    for wrong in (3, "adam", [one, None], torch.optim.SGD, ([one], [])):
        with pytest.raises(TypeError, match=r"expects a torch\.optim\.Optimizer.*; got "):
            as_optimizers(wrong)
    with pytest.raises(ValueError, match=r"SGD holds no parameter of this network, but 6 others"):
        check_trained((one,), (_network(),))
    check_trained((one,), (_network(), model))


def test_a_batch_with_its_labels_is_refused_as_example() -> None:
    model, x, y = _network(), torch.rand(2, 3), torch.tensor([0, 1])
    with pytest.raises(TypeError, match=r"forward.*; got 2 arguments .*\(x, y\), give the inputs alone"):
        check_call(model, (x, y))
    with pytest.raises(TypeError, match=r"got list; .* \[x, y\], give the inputs alone"):
        as_inputs([x, y], model)
    with pytest.raises(TypeError, match=r"got images .*inputs alone"):
        check_call(model, {"images": x})
    check_call(model, (x,))
    check_call(model, {"input": x})
    with pytest.raises(TypeError, match="give the inputs alone"):
        dpap.Pruner(model, (x, y))


def test_wrappers_that_may_write_are_found_whatever_they_are_given_in() -> None:
    one = torch.optim.SGD([nn.Parameter(torch.rand(2))], 0.1)
    inner = Wrapped(one)
    outer = Wrapped(inner)
    known = known_optimizers(each for each in (outer, one))
    assert (known.given, known.wrappers) == ((one,), (outer, inner))
    one.optimizer = outer  # type: ignore[attr-defined]  # an optimizer that knows its wrapper
    assert known_optimizers(outer).wrappers == (outer, inner)
