"""Weights of which most are zero take a bit for each entry and their values, and come back bit for bit."""

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dpap
from dpap.surgery.sparse import BITS, VALUES, mispacked, pack, unpack
from dpap.surgery.storage import _fingerprint

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64, torch.bool),
    *(
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.uint16,
        torch.int32,
        torch.uint32,
        torch.int64,
        torch.uint64,
    ),
]


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def thinned(*shape: int, alive: float = 0.05, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random bits, so any value of the kind, of which few are not zero."""
    size = torch.empty((), dtype=dtype).itemsize
    noise = torch.randint(1, 2 if dtype == torch.bool else 256, (*shape, size), dtype=torch.uint8)
    noise[torch.rand(shape) >= alive] = 0
    return noise.view(dtype)[..., 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(40, 50), (41, 7, 3, 3)], ids=str)
def test_any_kind_of_number_comes_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    tensor = thinned(*shape, dtype=dtype)
    stored, shapes = pack({"weight": tensor}, ["weight"])
    assert shapes == {"weight": list(shape)} and mispacked(stored, shapes) is None
    assert sum(each.numel() * each.itemsize for each in stored.values()) < tensor.numel() * tensor.itemsize
    back = unpack(stored, shapes, {"weight": tensor})["weight"]
    assert back.dtype == dtype and back.shape == tensor.shape and torch.equal(bits(back), bits(tensor))


def test_values_that_only_look_like_zero_or_are_no_numbers_are_values() -> None:
    tensor = torch.zeros(64, 64)
    odd = torch.tensor([-0.0, float("nan"), float("inf"), 1e-45])
    tensor[3, :4] = odd
    tensor[5, 0] = torch.tensor(0x7FC0_0001, dtype=torch.int32).view(torch.float32)  # another NaN
    stored, shapes = pack({"w": tensor}, ["w"])
    assert len(stored["w" + VALUES]) == 5
    assert torch.equal(bits(unpack(stored, shapes, {"w": tensor})["w"]), bits(tensor))


@pytest.mark.parametrize(
    ("tensor", "packed"),
    [
        (torch.rand(60, 60) + 1, False),
        (torch.zeros(60, 60), True),
        (torch.zeros(0, 60), False),
        (torch.zeros(4, 4), False),  # its names would take more
        (torch.zeros(()), False),
        (torch.zeros(5000), False),
    ],
    ids=["none dead", "all dead", "no entries", "few entries", "a number", "a vector"],
)
def test_what_would_not_be_smaller_stays_as_it_is(tensor: Tensor, packed: bool) -> None:
    stored, shapes = pack({"w": tensor}, ["w"])
    assert bool(shapes) == packed and ("w" in stored) != packed
    assert torch.equal(unpack(stored, shapes, {"w": tensor})["w"], tensor)


def test_masks_of_timesteps_and_names_that_are_taken_stay() -> None:
    tensors = {"a.timestep_alive": torch.zeros(99, 99), "w": torch.zeros(99, 99), "w" + BITS: torch.ones(1)}
    assert pack(tensors, list(tensors)) == (tensors, {})


class Tied(nn.Module):
    """Weights that are tied, recurrent, transposed in memory, and of an extra state."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 30), nn.Linear(30, 40)
        self.head.weight = self.embed.weight
        self.lstm = nn.LSTM(30, 20, 2, proj_size=10, bidirectional=True)
        self.turned = nn.Parameter(torch.rand(90, 50).T)
        self.kernels = nn.Conv2d(30, 20, 3).to(memory_format=torch.channels_last)

    def get_extra_state(self) -> Tensor:
        return torch.zeros(60, 60)

    def set_extra_state(self, state: Tensor) -> None:
        assert state.shape == (60, 60)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_networks_of_all_kinds_of_weights_come_back(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model, fresh = Tied(), Tied()
    for parameter in model.parameters():
        parameter.data[torch.rand_like(parameter) < 0.95] = 0
    path = dpap.save(model, tmp_path / "small.safetensors")
    dense = dpap.save(fresh, tmp_path / "dense.safetensors")
    assert path.stat().st_size < dense.stat().st_size / 2
    names = load_file(path).keys()
    assert {"embed.weight" + BITS, "lstm.weight_hh_l1_reverse" + VALUES, "turned" + BITS} <= names
    assert not {"embed.weight", "head.weight", "head.weight" + BITS, "_extra_state" + BITS} & names
    dpap.load(path, fresh)
    assert fresh.head.weight is fresh.embed.weight
    for name, value in model.state_dict().items():
        assert torch.equal(bits(fresh.state_dict()[name]), bits(value)), name
    assert dpap.save(fresh, tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_pruned_network_takes_less_room_and_stays_what_it_is(tmp_path: Path) -> None:
    def built() -> nn.Module:
        return nn.Sequential(nn.Linear(40, 60), nn.ReLU(), nn.Linear(60, 40)).double()

    torch.manual_seed(0)
    model, x = built(), torch.rand(8, 40, dtype=torch.float64)
    pruner = dpap.Pruner(
        model, x, None, dpap.PruningConfig(target=0.9, start_epoch=0, end_epoch=1, observe_every=1)
    )
    model(x).square().sum().backward()
    pruner.step()
    pruner.compact()
    pruner.detach()
    fresh = dpap.load(dpap.save(model, tmp_path / "small.safetensors"), built())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "small.safetensors").stat().st_size < 8 * count
    assert torch.equal(fresh(x), model(x)) and str(fresh) == str(model)


def test_a_network_without_dead_synapses_is_stored_as_before(tmp_path: Path) -> None:
    path = dpap.save(nn.Linear(30, 40), tmp_path / "dense.safetensors")
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["dpap"])
    assert about["format"] == 2 and "sparse" not in about and load_file(path).keys() == {"weight", "bias"}


Change = Callable[[dict[str, Any], dict[str, Tensor]], Any]


def forged(path: Path, change: Change) -> Path:
    """A file of `Linear(37, 41)`, changed, with the checksum of what it holds now."""
    model = nn.Linear(37, 41)
    nn.init.sparse_(model.weight, 0.9)
    dpap.save(model, path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["dpap"])
    tensors = load_file(path)
    del about["sha256"]
    change(about, tensors)
    save_file(tensors, path, {"dpap": json.dumps(about | {"sha256": _fingerprint(about, tensors)})})
    return path


def shaped(*shape: Any) -> Change:
    return lambda about, tensors: about["sparse"].update(weight=list(shape))


def _one_bit_more(about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    tensors["weight" + BITS][0] ^= 1


def _behind_the_last(about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    tensors["weight" + BITS][-1] |= 128
    tensors["weight" + VALUES] = torch.cat([tensors["weight" + VALUES], torch.ones(1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_one_bit_more, "values of 'weight', one for each bit that is set"),
        (_behind_the_last, "bits are set behind the last of 1517 entries"),
        (lambda about, tensors: tensors.update({"weight" + VALUES: torch.ones(2)}), "one for each bit"),
        (lambda about, tensors: tensors.update({"weight" + VALUES: torch.ones(150, 1)}), "one for each bit"),
        (lambda about, tensors: tensors.pop("weight" + BITS), "expected bits and values of 'weight'"),
        (lambda about, tensors: tensors.pop("weight" + VALUES), "expected bits and values of 'weight'"),
        (lambda about, tensors: tensors.update(weight=torch.ones(41, 37)), "no other tensor of it"),
        (
            lambda about, tensors: tensors.update({"weight" + BITS: tensors["weight" + BITS].bool()}),
            r"a bit for each of 1517 entries of 'weight', got torch\.bool",
        ),
        (shaped(41, 2**62), "a bit for each of"),
        (shaped(2**70, 2**70), "a bit for each of"),
        (shaped(41, -37), "expected sizes of 'weight'"),
        (shaped(0, 2**62), "expected sizes of 'weight'"),
        (shaped(41, "37"), "expected sizes of 'weight'"),
        (shaped(True, 37), "expected sizes of 'weight'"),
        (shaped(), "a bit for each of 1 entries"),
        (shaped(37, 41), r"weight: the file has \(37, 41\), the network only \(41, 37\)"),
        (shaped(41, 37, 1), r"weight: the file has \(41, 37, 1\), the network only \(41, 37\)"),
        (lambda about, tensors: about.update(sparse=[1]), "expected an object as 'sparse'"),
        (lambda about, tensors: about.update(sparse={}), r"weight\.\.bits: in the file, not in the network"),
        (lambda about, tensors: about["extra"].update(weight=1), "'weight' is both a tensor and extra state"),
        (lambda about, tensors: about["tied"].update(weight="bias"), "'weight' to be the same as another"),
        (lambda about, tensors: about.update(format=4), "expected format 2 or 3"),
    ],
)
def test_bits_and_values_that_do_not_fit_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    path, network = forged(tmp_path / "small.safetensors", change), nn.Linear(37, 41)
    before = network.weight.clone()
    with pytest.raises(ValueError, match=message) as caught:
        dpap.load(path, network)
    assert str(path) in str(caught.value) and torch.equal(network.weight, before)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")
def test_few_bytes_that_stand_for_many_zeros_take_no_room(tmp_path: Path) -> None:
    """4 MiB of bits stand for 256 MiB of double precision: room that only a network of that size is given."""
    entries = 1 << 25

    def many(about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        tensors["weight" + BITS] = torch.zeros(entries // 8, dtype=torch.uint8)
        tensors["weight" + VALUES] = torch.zeros(0, dtype=torch.float64)
        about["sparse"]["weight"] = [1 << 12, entries >> 12]

    path = forged(tmp_path / "small.safetensors", many)
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    before = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = pages * resource.getpagesize() + 10 * path.stat().st_size + (1 << 24)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, before[1]))
    try:
        with pytest.raises(ValueError, match=r"the file has \(4096, 8192\), the network only \(41, 37\)"):
            dpap.load(path, nn.Linear(37, 41))
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
