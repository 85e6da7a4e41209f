"""Headers of model files are refused before a library spends memory on them."""

import json
import tracemalloc
from pathlib import Path

import pytest
from torch import nn

import dpap
from dpap.surgery.header import check_header


def with_header(path: Path, header: bytes, length: int | None = None, data: int = 8) -> Path:
    size = len(header) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + header + bytes(data))
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "damaged"),
        (b'{"a":' * 20_000, "nested too deep"),
        (b'{"a":1,"a":2}', "'a' stands there twice"),
        (rb'{"a":{"\u0064type":"U8","shape":[],"data_offsets":[0,1]}}', "spelled as numbers"),
        (
            b'{"a":{"dtype":"U8","shape":[' + b"1," * 1_200_000 + b'1],"data_offsets":[0,1]}}',
            "would take about",
        ),
        (b'{"__metadata__":{"dpap":"[' + b"[]," * 300_000 + b'[]]"}}', "would take about"),
        (b'{"a":{"dtype":"U8","shape":[4000000000000],"data_offsets":[0,4000000000000]}}', "damaged"),
    ],
)
def test_what_no_file_has(tmp_path: Path, header: bytes, message: str) -> None:
    path = with_header(tmp_path / "small.safetensors", header)
    with pytest.raises(ValueError, match=message) as caught:
        dpap.load(path, nn.Linear(2, 2))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [2**64 - 1, 2**40, 100])
def test_a_length_is_not_believed(tmp_path: Path, length: int) -> None:
    path = with_header(tmp_path / "small.safetensors", b"{}", length)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"a header of {length} bytes, in a file of 18"):
            check_header(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_names_with_letters_of_other_languages_are_read(tmp_path: Path) -> None:
    model = nn.ModuleDict({"größe": nn.Linear(2, 2), 'a"\\': nn.Linear(2, 1)})
    path = dpap.save(model, tmp_path / "small.safetensors")
    fresh = nn.ModuleDict({"größe": nn.Linear(2, 2), 'a"\\': nn.Linear(2, 1)})
    dpap.load(path, fresh)
    header = path.read_bytes()[8:]
    assert "größe".encode() in header and json.dumps("größe")[1:4].encode() in header
