"""The machine a run is on: what it is, and how it is set so that the same seed gives the same bits."""

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dpap.experiment.errors import UserError


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Kind of processor, cores, versions; no name of a host or user."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bfloat16": has_bfloat16(device),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def has_bfloat16(device: torch.device) -> bool:
    """Whether there is bfloat16 arithmetic; elsewhere it is emulated, at a fifth of the speed of float32 and less."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.exists():
        for line in table.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def choose_device(name: str, setting: str = "training.device") -> torch.device:
    """The device of that name; auto is a GPU where there is one.

    Args:
        name: auto, cpu, cuda or cuda:N.
        setting: what the user named it by.

    Raises:
        UserError: when there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"{setting} must be auto, cpu, cuda or cuda:N; got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"{setting} is {name!r}, but torch finds {torch.cuda.device_count()} GPUs; use auto or cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"{setting} must be auto, cpu, cuda or cuda:N; got {name!r}")
    return device


OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator|[Tt]ried to allocate|Storage size calculation overflowed|multiplication overflow"
    r"|Overflow when unpacking long|cannot convert float infinity to integer"
)
"""Of the messages of torch and Python where something is too large: most of these errors have no class of their own."""


@contextmanager
def enough_memory(what: str, lower: str) -> Iterator[None]:
    """Turns errors of memory that cannot be had into UserErrors that say what to lower; others are left alone.

    Args:
        what: is made, in words.
        lower: settings that it grows with.
    """
    try:
        yield
    except (MemoryError, RuntimeError, TypeError, OverflowError) as error:
        if not (isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error))):
            raise
        size = re.search(r"ried to allocate (?:(\d+) bytes|(\d[\d.]* \w+))", str(error))
        asked = "" if size is None else f", {size[2] or f'{int(size[1]) / 1e9:,.1f} GB'} at once"
        raise UserError(f"{what}: more memory is needed than there is{asked}; lower {lower}") from error


def has_room(device: torch.device, bytes_: int) -> bool:
    """Whether a GPU has room for data that stay there: an eighth of what is free, for runs may share one."""
    return device.type == "cuda" and 8 * bytes_ <= torch.cuda.mem_get_info(device)[0]


def keep_freed_memory() -> bool:
    """Let this process keep what tensors on the CPU free, for the next ones; True where the C library allows it.

    glibc gives blocks of 32 MiB and more back to the system at once, which then clears the same pages at every
    step: of large feature maps that takes longer than the arithmetic of their neurons.
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(mmap_max, 0) and library.mallopt(trim_threshold, 2**31 - 1))


@contextmanager
def repeatable(threads: int | None) -> Iterator[None]:
    """Deterministic algorithms, so many threads, and afterwards everything as it was."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        with with_threads(threads):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def with_threads(threads: int | None) -> Iterator[None]:
    """So many threads, if any number is given, and afterwards as many as before."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
