"""Data and networks: good files of every kind, ways to damage and to forge them, and how they are read."""

import gzip
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from fuzz_mutations import Random, changed, damaged, other_tensor
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

import dpap
from dpap.data import DataConfig, load_data
from dpap.data.events import cached_frames
from dpap.models import NetworkConfig, build_network
from dpap.surgery.storage import _fingerprint
from dpap.surgery.timesteps import silence_timesteps

Forge = Callable[[Random], bytes]


@dataclass
class Kind:
    """Files of one kind.

    Attributes:
        files: path below the folder -> good content.
        read: reads what lies in the folder; errors that it may raise are `refusals`.
        forged: path -> contents that are made up rather than damaged; takes half of the inputs of that path.
        damageable: whether bytes of its files are changed too.
        words: by which an error may name what is wrong, where there is no file, or it was read long before.
    """

    files: dict[str, bytes]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...] = (ValueError, FileNotFoundError)
    forged: dict[str, Forge] = field(default_factory=dict)
    damageable: bool = True
    words: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Lay out the good files."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def spoil(self, folder: Path, random: Random) -> str:
        """Damage or forge one of them; returns which."""
        name = sorted(self.files)[random.integers(len(self.files))]
        if name in self.forged and (not self.damageable or random.random() < 0.5):
            content = self.forged[name](random)
        else:
            content = damaged(self.files[name], random)
        _put(folder / name, content)
        return name

    def mend(self, folder: Path, name: str) -> None:
        """Put the good one back."""
        _put(folder / name, self.files[name])


def _put(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # some file systems flush a file that is made shorter first: 20 times slower
    path.write_bytes(content)


def _idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def _data(name: str, **options: Any) -> Callable[[Path], object]:
    def read(folder: Path) -> object:
        try:
            return load_data(DataConfig(name=name, root=str(folder), cache=str(folder / "cache"), **options))
        finally:
            shutil.rmtree(folder / "cache", ignore_errors=True)

    return read


def mnist(packed: bool) -> Kind:
    """IDX, gzip or not; a bomb's header promises what the bomb holds."""
    random, files, forged = np.random.default_rng(0), {}, {}
    end = ".gz" if packed else ""
    pack: Callable[[bytes], bytes] = (lambda raw: gzip.compress(raw, 1)) if packed else (lambda raw: raw)
    for part, count in (("train", 12), ("t10k", 6)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, values in (
            (f"{part}-images-idx3-ubyte{end}", images),
            (f"{part}-labels-idx1-ubyte{end}", labels),
        ):
            raw = _idx(values)
            files[name] = pack(raw)
            if packed:
                forged[name] = _forged_gzip(raw)
    return Kind(files, _data("mnist"), forged=forged)


_BOMBS = {size: gzip.compress(bytes(size << 20), 9) for size in (2, 24)}


def _forged_gzip(raw: bytes) -> Forge:
    def forge(random: Random) -> bytes:
        if random.random() < 0.8:
            return gzip.compress(damaged(raw, random), 1)
        size = int(random.choice(list(_BOMBS)))
        dimensions = raw[3]
        promised = [size * (1 << 20) // 784, 28, 28] if dimensions == 3 else [size << 20]
        if random.random() < 0.5:
            promised[0] = int(random.integers(2**32))
        return gzip.compress(raw[:4] + struct.pack(f">{dimensions}I", *promised)) + _BOMBS[size]

    return forge


def cifar() -> Kind:
    """Records of a label and 3072 pixels."""
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    record = bytes([3]) + np.random.default_rng(1).bytes(3072)
    return Kind({f"{name}.bin": record * 2 for name in names}, _data("cifar10"))


def nmnist() -> Kind:
    """Two recordings of events of 5 bytes."""
    random = np.random.default_rng(2)
    files = {}
    for part in ("Train", "Test"):
        times = np.sort(random.integers(0, 300_000, 60)).tolist()
        rows = [(*random.integers(0, 34, 2).tolist(), int(random.integers(2)), time) for time in times]
        files[f"NMNIST/{part}/3/00001.bin"] = b"".join(
            bytes([x, y, polarity << 7 | time >> 16, time >> 8 & 255, time & 255])
            for x, y, polarity, time in rows
        )
    return Kind(files, _data("nmnist", timesteps=4))


def gesture() -> Kind:
    """AEDAT 3.1 with labels, and the lists of recordings."""
    random = np.random.default_rng(3)
    files = {}
    for part in ("train", "test"):
        packets = [b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"]
        for first in (0, 20_000):
            times = np.sort(random.integers(first, first + 20_000, 30)).tolist()
            packets.append(struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 30, 30, 30))
            for time in times:
                x, y = random.integers(0, 128, 2).tolist()
                packets.append(struct.pack("<II", x << 17 | y << 2 | 1, time))
        files[f"{part}1.aedat"] = b"".join(packets)
        rows = "".join(f"{number},{number * 5000},{number * 5000 + 4000}\n" for number in range(1, 7))
        files[f"{part}1_labels.csv"] = f"class,startTime_usec,endTime_usec\n{rows}".encode()
        files[f"trials_to_{part}.txt"] = f"{part}1.aedat\n".encode()
    return Kind(files, _data("dvs_gesture", timesteps=4))


def frames() -> Kind:
    """Cached frames: what is damaged is built anew, silently."""
    good = np.random.default_rng(4).integers(0, 9, (3, 2, 2, 4, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    np.save(buffer, good)

    def read(folder: Path) -> object:
        found = cached_frames(folder, "key", good.shape, lambda: iter(good))
        if not np.array_equal(found.numpy(), good):
            raise AssertionError("other frames than those that were built")
        return found

    files = {"key.npy": buffer.getvalue(), "key.crc32": f"{zlib.crc32(good.tobytes()):08x}".encode()}
    return Kind(files, read, refusals=())


NETWORK = NetworkConfig(layers="3C3-BN-AvgPool2-4C3-6FC-3FC", timesteps=3, threshold=0.5)
IMAGES = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))

OTHER_TIMESTEPS = "timesteps of this network were pruned for T ="
"""How a neuron refuses an input of other timesteps than its mask has: of how many these are only an input tells."""


def _networks() -> dict[str, Callable[[], nn.Module]]:
    return {
        "spiking": lambda: build_network(NETWORK, (1, 6, 6), 3).eval(),
        "plain": lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4), nn.PReLU(4), nn.Flatten(),
            nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3),
        ).eval(),
        "recurrent": lambda: nn.Sequential(nn.Flatten(), nn.LSTM(36, 5, 2, proj_size=3)).eval(),
        "sparse": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 99), nn.ReLU(), nn.Linear(99, 3)).eval(),
    }  # fmt: skip


def _stored(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Description and tensors of a smaller network, from a file that dpap wrote."""
    torch.manual_seed(0)
    small = {
        "spiking": lambda: build_network(
            NetworkConfig(layers="2C3-BN-AvgPool2-3C3-4FC-3FC", timesteps=3, threshold=0.5), (1, 6, 6), 3
        ),
        "plain": lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 3, groups=2), nn.PReLU(2), nn.Flatten(),
            nn.Linear(8, 3), nn.ReLU(), nn.Linear(3, 3),
        ),
        "recurrent": lambda: nn.Sequential(nn.Flatten(), nn.LSTM(36, 3, 2, proj_size=2)),
        "sparse": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 90), nn.ReLU(), nn.Linear(90, 3)),
    }[name]()  # fmt: skip
    if name == "spiking":
        silence_timesteps(small.get_submodule("spike1"), torch.rand(3, 2) > 0.3, 0, -3)
    if name == "sparse":
        nn.init.sparse_(small.get_submodule("1").weight, 0.9)
    with TemporaryDirectory() as folder:
        path = dpap.save(small, Path(folder) / "small.safetensors")
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["dpap"])
        return about, load_file(path)


def _written(about: Any, tensors: dict[str, Tensor], signed: bool = True) -> bytes:
    if signed and isinstance(about, dict):
        about = {key: value for key, value in about.items() if key != "sha256"}
        about["sha256"] = _fingerprint(about, tensors)
    return as_safetensors(tensors, {"dpap": json.dumps(about)})


def _other_tensors(tensors: dict[str, Tensor], random: Random) -> dict[str, Tensor]:
    """Tensors of which some are of another size or precision, missing, or renamed."""
    tensors = dict(tensors)
    for _ in range(random.integers(1, 3)):
        name = sorted(tensors)[random.integers(len(tensors))]
        match int(random.integers(0, 8)):
            case 0:
                del tensors[name]
            case 1:
                tensors[f"{name}x" if random.random() < 0.5 else "x"] = tensors.pop(name)
            case _:
                tensors[name] = other_tensor(tensors[name], random)
    return tensors or {"x": torch.ones(1)}


def _forged_model(name: str) -> Forge:
    about, tensors = _stored(name)

    def forge(random: Random) -> bytes:
        choice = random.random()
        if choice < 0.5:
            return _written(about, _other_tensors(tensors, random))
        if choice < 0.9:
            other = changed({key: value for key, value in about.items() if key != "sha256"}, random)
            return _written(other, tensors)
        return _forged_header(random)

    return forge


def _forged_header(random: Random) -> bytes:
    """Headers that promise much, or hold much of little."""
    number = int(random.choice([1, 1000, 30_000]))
    match int(random.integers(0, 5)):
        case 0:
            header = b"{" + b",".join(
                b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % each for each in range(number)
            ) + b"}"  # fmt: skip
        case 1:
            header = b'{"a":{"dtype":"U8","shape":[' + b"1," * number + b'1],"data_offsets":[0,1]}}'
        case 2:
            opening = b"[" if random.random() < 0.5 else b'{\\"a\\":'
            header = b'{"__metadata__":{"dpap":"' + opening * number + b'"}}'
        case 3:
            header = b'{"__metadata__":{"dpap":"[' + b"[]," * number + b'[]]"}}'
        case _:
            size = int(random.choice([2**31, 2**40, 2**62]))
            header = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (size, 4 * size)
    length = len(header) if random.random() < 0.8 else (0, 1, 2**31, 2**62, 2**64 - 1)[random.integers(5)]
    return length.to_bytes(8, "little") + header + bytes(8)


def model(name: str) -> Kind:
    """A model file; what is loaded has to run."""
    about, tensors = _stored(name)
    build = _networks()[name]

    def read(folder: Path) -> object:
        network = dpap.load(folder / "model.safetensors", build())
        with torch.no_grad():
            return network(IMAGES)

    return Kind(
        {"model.safetensors": _written(about, tensors)},
        read,
        (ValueError,),
        {"model.safetensors": _forged_model(name)},
        words=(OTHER_TIMESTEPS,),
    )


GOOD = b"unharmed"


def of_seeds(read: Callable[[Path], object], words: tuple[str, ...]) -> Kind:
    """What is no file itself: `read` makes it from the bytes of the file `seed`, unharmed of GOOD."""

    def forge(random: Random) -> bytes:
        return random.bytes(8)

    return Kind({"seed": GOOD}, read, (ValueError,), {"seed": forge}, damageable=False, words=words)


def state() -> Kind:
    """A state_dict for `load_state`, made from a file of numbers, for it is no file itself."""
    # a state holds no bits in the place of a tensor
    networks = {name: build for name, build in _networks().items() if name != "sparse"}
    stored = {name: _stored(name)[1] for name in networks}

    def read(folder: Path) -> object:
        seed = (folder / "seed").read_bytes()
        random = np.random.default_rng(list(seed))
        name = sorted(networks)[random.integers(len(networks))]
        values: dict[str, Any] = dict(stored[name])
        if seed != GOOD:
            values = dict(_other_tensors(stored[name], random))
        if seed != GOOD and random.random() < 0.2:
            key = sorted(values)[random.integers(len(values))]
            values[key] = changed({"a": [1]}, random)
        network = dpap.load_state(networks[name](), values)
        with torch.no_grad():
            return network(IMAGES)

    return of_seeds(read, ("this state", OTHER_TIMESTEPS))


KINDS: dict[str, Callable[[], Kind]] = {
    "IDX": lambda: mnist(packed=False),
    "IDX, gzip": lambda: mnist(packed=True),
    "CIFAR": cifar,
    "N-MNIST": nmnist,
    "AEDAT": gesture,
    "frames": frames,
    "model, spiking": lambda: model("spiking"),
    "model, plain": lambda: model("plain"),
    "model, recurrent": lambda: model("recurrent"),
    "model, sparse": lambda: model("sparse"),
    "state": state,
}
