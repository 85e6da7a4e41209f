"""Every kind of file that dpap reads: a good one, ways to damage and to forge it, and how it is read."""

import csv
import gzip
import hashlib
import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from fuzz_mutations import Random, changed, damaged
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

import dpap
from dpap.data import DataConfig, load_data
from dpap.data.events import cached_frames
from dpap.experiment.checkpoint import read_checkpoint, write_checkpoint
from dpap.experiment.config import ExperimentConfig, load_config
from dpap.experiment.errors import UserError
from dpap.experiment.results import EPOCHS, RESULTS, EpochResult, Result, as_csv, read_csv
from dpap.models import NetworkConfig, build_network
from dpap.report.records import read_run
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
        (folder / name).write_bytes(content)
        return name

    def mend(self, folder: Path, name: str) -> None:
        """Put the good one back."""
        (folder / name).write_bytes(self.files[name])


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
        tensor = tensors[name]
        match int(random.integers(0, 8)):
            case 0:
                del tensors[name]
            case 1:
                tensors[f"{name}x" if random.random() < 0.5 else "x"] = tensors.pop(name)
            case 2:
                kinds = (torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool, torch.bfloat16)
                tensors[name] = tensor.to(kinds[random.integers(len(kinds))])
            case 3 | 4 | 5 | 6 if tensor.ndim:
                shape = list(tensor.shape)
                shape[random.integers(len(shape))] = int(random.integers(0, 7))
                tensors[name] = torch.ones(shape, dtype=tensor.dtype)
            case 7:
                tensors[name] = tensor[None]
            case _:
                tensors[name] = tensor * 3
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


def state() -> Kind:
    """A state_dict for `load_state`, made from a file of numbers, for it is no file itself."""
    # a state holds no bits in the place of a tensor
    networks = {name: build for name, build in _networks().items() if name != "sparse"}
    stored = {name: _stored(name)[1] for name in networks}

    def forge(random: Random) -> bytes:
        return random.bytes(8)

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

    return Kind(
        {"seed": GOOD},
        read,
        (ValueError,),
        {"seed": forge},
        damageable=False,
        words=("this state", OTHER_TIMESTEPS),
    )


def checkpoint() -> Kind:
    """A checkpoint: damaged, or an archive with other parts and right checksums."""
    network = nn.Linear(3, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        states = {
            "epoch": 1,
            "config": {"a": 1},
            "model": network.state_dict(),
            "optimizer": {},
            "pruner": None,
        }
        write_checkpoint(path, states)
        good = path.read_bytes()

    def forge(random: Random) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(buffer, "w") as new:
            names = old.namelist()
            spoiled = names[random.integers(len(names))]
            for each in names:
                content, method = old.read(each), zipfile.ZIP_STORED
                if each == spoiled:
                    content = damaged(content, random) if random.random() < 0.95 else bytes(32 << 20)
                    method = zipfile.ZIP_DEFLATED if len(content) > 1 << 20 else method
                new.writestr(each, content, method)
            new.comment = old.comment and b"dpap sha256 " + hashlib.sha256(b"").hexdigest().encode()
        content = buffer.getvalue()
        if b"dpap sha256 " in good[-100:]:
            content = content[:-64] + hashlib.sha256(content[: -64 - 12]).hexdigest().encode()
        return content

    return Kind(
        {"checkpoint.pt": good},
        lambda folder: read_checkpoint(folder / "checkpoint.pt"),
        (UserError,),
        {"checkpoint.pt": forge},
    )


def run() -> Kind:
    """A run folder, as `dpap report` reads it."""
    layer = {
        "name": "fc1",
        "kind": "fc",
        "units": 4,
        "alive": 3,
        "weights": 12,
        "weights_alive": 9,
        "timesteps_alive": 1.0,
    }
    epoch = {
        "epoch": 1, "train_loss": 0.5, "train_accuracy": 0.9, "test_loss": 0.5, "test_accuracy": 0.8, "sparsity": 0.2,
        "epsilon": {"conv": 1.0}, "seconds": 2.0, "target": 0.5, "target_of": "weights",
        "compacted": {"parameters_before": 9, "parameters_after": 4}, "layers": [layer],
    }  # fmt: skip
    cost = {
        "parameters": 12,
        "weights": 12,
        "macs": 12,
        "layers": [{"name": "fc1", "units": 4, "features": 3, "weights": 12}],
    }
    summary = {
        "epochs": 2,
        "final_epoch": 2,
        "final_test_accuracy": 0.8,
        "sparsity": 0.2,
        "before": cost,
        "after": cost,
    }
    values: dict[str, list[Any]] = {
        "run.json": [{"name": "a", "network": "4FC", "spiking": False, "machine": {"cpu": "x"}, "seed": 1}],
        "metrics.jsonl": [epoch, {**epoch, "epoch": 2}],
        "survival.jsonl": [{"epoch": number, "layers": {"fc1": [1.0, None, 0.5, 1.0]}} for number in (1, 2)],
        "summary.json": [summary],
    }

    def text(lines: list[Any]) -> bytes:
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def forge_of(name: str) -> Forge:
        def forge(random: Random) -> bytes:
            if random.random() < 0.05:
                return (b"[" if random.random() < 0.5 else b'{"a":') * int(random.choice([10, 100_000]))
            lines = list(values[name])
            place = int(random.integers(len(lines)))
            lines[place] = changed(lines[place], random)
            return text(lines)

        return forge

    files = {name: text(lines) for name, lines in values.items()} | {
        "config.yaml": b"name: a\n",
        "twin": b"../a",
    }
    return Kind(files, read_run, (UserError, FileNotFoundError), {name: forge_of(name) for name in values})


def tables() -> Kind:
    """The tables of a comparison."""

    def filled(kind: Any) -> Any:
        return kind(
            **{
                name: 1.0 if "float" in str(of) else 1 if of is int or of == int | None else "a"
                for name, of in kind.__annotations__.items()
            }
        )

    files = {
        RESULTS: as_csv(Result, [filled(Result)] * 2).encode(),
        EPOCHS: as_csv(EpochResult, [filled(EpochResult)] * 2).encode(),
    }

    def read(folder: Path) -> object:
        return read_csv(Result, folder / RESULTS), read_csv(EpochResult, folder / EPOCHS)

    def forge_of(name: str) -> Forge:
        def forge(random: Random) -> bytes:
            rows = list(csv.reader(io.StringIO(files[name].decode())))
            row = changed(rows[1], random)
            rows[random.integers(len(rows))] = list(map(str, row if isinstance(row, list) else [row]))
            buffer = io.StringIO()
            csv.writer(buffer).writerows(rows)
            return buffer.getvalue().encode(errors="surrogatepass")

        return forge

    return Kind(files, read, (UserError,), {name: forge_of(name) for name in files})


_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + number)}: &{chr(98 + number)} [{', '.join([f'*{chr(97 + number)}'] * 9)}]\n"
    for number in range(9)
)


def recipe() -> Kind:
    """A recipe."""
    values = ExperimentConfig().as_dict()

    def forge(random: Random) -> bytes:
        choice = random.random()
        if choice < 0.04:
            return _LAUGHS.encode()
        if choice < 0.08:
            return b"data: " + b"{a: " * int(random.choice([5, 5000])) + b"1"
        if choice < 0.1:
            return b"data: &x\n  arguments: *x\n"
        return yaml.safe_dump(changed(values, random), sort_keys=False, allow_unicode=False).encode()

    files = {"recipe.yaml": yaml.safe_dump(values, sort_keys=False).encode()}
    return Kind(
        files, lambda folder: load_config(folder / "recipe.yaml"), (UserError,), {"recipe.yaml": forge}
    )


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
    "checkpoint": checkpoint,
    "run": run,
    "tables": tables,
    "recipe": recipe,
}
