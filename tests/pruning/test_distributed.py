import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import dpap
from dpap.plasticity import CRITERIA
from dpap.pruning.distributed import Ranks, RanksError
from dpap.pruning.wrappers import check_whole
from support.ranks import EPOCHS, SCALE, all_cases, batches, network, on_ranks

# ranks wait for each other at every step: where cores are shared by many, that takes far longer than it computes
pytestmark = pytest.mark.timeout(1200)

CASES: dict[str, dict[str, Any]] = {
    "taylor_strength": {"compact": "auto"},
    "taylor": {},
    "bcm": {"spiking": True, "timestep_target": 0.3},
    "bcm_strength": {"inner": True},
    "bcm_without_spines": {"scope": "layer"},
    "hebb": {"accumulate": 2},
    "stdp": {"copies": True, "compact": "auto"},
    "released": {"observe_every": 2},
    "firing_rate": {"target_of": "energy"},
    "magnitude": {"spiking": True, "timestep_target": 0.3},
    "random": {"wrapped": False},
    "random_once": {"compact": "auto"},
    "taylor, timesteps and operations": {
        "spiking": True, "timestep_target": 0.3, "target_of": "synaptic_operations", "accumulate": 2,
    },
    "bcm, a batch that is not finite": {"broken": 1},
    "taylor, within the step": {"closure": True},
    "taylor, bfloat16": {"precision": torch.bfloat16},
    "taylor, float16, one rank's gradients overflow": {"precision": torch.float16, "overflow": 1, "copies": True},
    "taylor, scaled, one rank's gradients overflow": {"overflow": 1, "accumulate": 2, "compact": "auto"},
    "hebb, scaled, one rank's gradients overflow": {"overflow": 2, "wrapped": False},
}  # fmt: skip
NAMED = {name: {"criterion": name.split(",")[0], **how} for name, how in CASES.items()}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What two ranks of half a batch came to, of every case."""
    return _checked(on_ranks(_all, 2, tmp_path_factory.mktemp("ranks")))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one process of the whole batch came to; a process of its own, where no shapes are checked."""
    return _checked(on_ranks(_all, 1, tmp_path_factory.mktemp("alone")))[0]


def _all(rank: int) -> dict[str, Any]:
    return all_cases(rank, NAMED) | {"slots": _slots(rank)}


def _checked(results: list[Any]) -> list[Any]:
    for result in results:
        assert not isinstance(result, Exception), result
    return results


def test_every_criterion_is_tried() -> None:
    known = {name for name, one in CRITERIA.items() if type(one).__module__.startswith("dpap.")}
    assert known == {how["criterion"] for how in NAMED.values()}


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_prune_what_one_process_of_the_whole_batch_does(case: str, both: Any, one: Any) -> None:
    first, second = both[0][case], both[1][case]
    for part in ("weights", "average", "left"):
        assert first[part].keys() == second[part].keys()
        assert all(torch.equal(first[part][name], second[part][name]) for name in first[part])
    for ours, other in zip(first["masks"], second["masks"], strict=True):
        assert all(torch.equal(ours[name], other[name]) for name in ours)

    alone = one[case]
    assert sum(each.numel() for each in alone["weights"].values()) < sum(
        each.numel() for each in network("spiking" in NAMED[case]).parameters()
    )
    assert first["left out"] == alone["left out"]
    assert first["samples"] == alone["samples"]
    skipped = EPOCHS if "overflow" in NAMED[case] else 0
    assert first["scale"] == second["scale"] == alone["scale"] == (SCALE / 2**skipped if skipped else 1)
    if "precision" in NAMED[case]:
        return  # of half the batch the sums of a gradient are rounded otherwise
    for epoch, (ours, whole) in enumerate(zip(first["masks"], alone["masks"], strict=True)):
        for name in whole:
            assert torch.equal(ours[name], whole[name]), (epoch, name)
    for part in ("weights", "average"):
        for name, whole in alone[part].items():
            torch.testing.assert_close(first[part][name], whole, rtol=1e-9, atol=1e-9)


def _refused(rank: int) -> list[str]:
    """What goes wrong, case by case, in words."""
    heard = []

    def note(call: Any) -> None:
        try:
            call()
            heard.append("")
        except Exception as error:
            heard.append(f"{type(error).__name__}: {error}")

    x, y = batches()[rank]

    def learn(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    # no optimizer, where gradients are averaged before it steps
    note(lambda: dpap.Pruner(network(), x))
    # other configurations
    optimizer = torch.optim.SGD((model := network()).parameters(), 0.1)
    note(lambda: dpap.Pruner(model, x, optimizer, dpap.PruningConfig(seed=rank)))
    # examples of another kind
    note(lambda: dpap.Pruner(model, x if rank else x[:, :, None], optimizer))
    # nothing averages the gradients
    apart = dpap.Pruner(model, x, optimizer)
    learn(model, optimizer)
    note(apart.step)
    # one rank alone steps; the other has gone on to something else
    together = DistributedDataParallel(model := network())
    pruner = dpap.Pruner(together, x, optimizer := torch.optim.SGD(model.parameters(), 0.1))
    learn(together, optimizer)
    note(pruner.step if rank == 0 else lambda: dpap.Pruner(network(), x, optimizer))
    # more numbers than travel with the check
    assert Ranks().gather("count", [float(rank)] * 300) == [[0.0] * 300, [1.0] * 300]
    # a pruner that was made before there were ranks
    pruner._ranks.number = 1
    note(pruner.step)
    pruner._ranks.number = 2
    # a rank is gone
    if rank == 0:
        note(pruner.step)
    return heard


def test_ranks_that_disagree_or_end_are_an_error_in_words(tmp_path: Path) -> None:
    first, second = on_ranks(_refused, 2, tmp_path, seconds=20)
    for here in (first, second):
        assert "give Pruner the optimizer" in here[0]
        assert "RanksError" in here[1] and "configuration" in here[1]
        assert "same kind on every rank" in here[2]
        assert "the network of rank 1 is not that of rank 0" in here[3] and "average its gradients" in here[3]
        assert "came to" in here[4] and "when the others do" in here[4]
        assert "call torch.distributed.init_process_group first" in here[5]
    assert "one of them ended" in first[6]


def test_without_other_ranks_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", None)
    ranks = Ranks()
    one = torch.rand(3)
    assert not ranks.many and ranks.sum("", [one])[0] is one and ranks.any("", [True, False]) == [True, False]
    assert ranks.largest("", 4) == 4 and ranks.all("", True) and not ranks.all("", False)
    assert ranks.broadcast((one,))[0] is one
    ranks.check_same("", {"": 1}, "")
    assert issubclass(RanksError, RuntimeError)


@pytest.fixture
def group(tmp_path: Path) -> Any:
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_parameters_that_are_spread_over_ranks_are_refused(group: Any) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = fully_shard(network(), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(TypeError, match="expected a network of which every rank holds the whole"):
        dpap.Pruner(model, batches()[0][0])
    check_whole(network())


def test_a_wrapper_is_made_anew_in_place_and_keeps_its_settings(group: Any) -> None:
    """The check of a removal runs in another precision, and tensors change size: the hooks at gradients are lost."""
    model, calls = network().float(), []
    wrapper = DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=1)

    def hook(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        calls.append(bucket.buffer().numel())
        future: Any = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapper.register_comm_hook(None, hook)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    example = batches()[0][0].float()
    config = dpap.PruningConfig(target=0.6, start_epoch=0, end_epoch=1)
    average = copy.deepcopy(model)
    pruner = dpap.Pruner(wrapper, example, optimizer, config, copies=DistributedDataParallel(average))

    def learn() -> int:
        calls.clear()
        optimizer.zero_grad()
        wrapper(example).square().sum().backward()
        optimizer.step()
        return sum(calls)

    def size() -> int:
        return sum(one.numel() for one in model.parameters())

    assert learn() == size()
    pruner.step()
    before = size()
    pruner.compact()
    assert learn() == size() < before
    assert wrapper.module is model and wrapper.gradient_as_bucket_view
    assert [one.shape for one in average.parameters()] == [one.shape for one in model.parameters()]
    # and when a smaller structure is loaded
    other = DistributedDataParallel(again := network().float())
    dpap.Pruner(other, example, torch.optim.Adam(again.parameters()), config).load_state_dict(
        pruner.state_dict()
    )
    again.load_state_dict(model.state_dict())
    other(example).sum().backward()
    torch.testing.assert_close(other(example), wrapper(example))


def test_statistics_of_batch_slots_are_saved_of_all_ranks(both: Any, one: Any) -> None:
    for here in both:
        for saved, whole in zip(here["slots"], one["slots"], strict=True):
            torch.testing.assert_close(saved, whole, rtol=1e-12, atol=1e-12)


def _slots(rank: int) -> list[torch.Tensor]:
    """Thresholds of the batch slots: saved after an epoch, and after another of a pruner that loaded these."""
    ranks = dist.get_world_size()
    config = dpap.PruningConfig.released()
    found, state = [], None
    for _ in range(2):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        pruner = dpap.Pruner(model, batches()[0][0], optimizer, config)
        if state is not None:
            pruner.load_state_dict(state)
        for x, _ in batches():
            model(x.chunk(ranks)[rank]).sum().backward()
        pruner.step()
        state = pruner.state_dict()
        found += [state["statistics"][name]["threshold"] for name in ("0", "2")]
    return found
