import json
from pathlib import Path

import pytest

from dpap.experiment.errors import UserError
from dpap.experiment.sealed import append, intact_lines, read_json, read_lines, read_text, write_json


def test_lines_survive_a_cut_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for epoch in (1, 2, 3):
        append(path, {"epoch": epoch, "loss": epoch / 3})
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert [record["epoch"] for record in read_lines(path)] == [1, 2, 3][:complete]


def test_a_broken_line_among_others_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for broken, message in (
        ('{"epoch": 2, "lo', "line 2: expected one JSON object"),
        ("[2]", "line 2: .* got list"),
        ("[" * 3_000, "line 2: expected one JSON object"),
        (b"\xff\xfe".decode("latin-1"), "line 2: expected one JSON object"),
    ):
        path.write_text(f'{{"epoch": 1}}\n{broken}\n{{"epoch": 3}}\n', encoding="latin-1")
        with pytest.raises(UserError, match=message):
            read_lines(path)
        assert [record["epoch"] for record in intact_lines(path)[0].values()] == [1, 3]


def test_what_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append(tmp_path / "metrics.jsonl", {"epoch": 1, "loss": float("nan")})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    for content, message in (
        ('{"epochs": ', "expected JSON"),
        ("[]", "expected a JSON object, got list"),
        ("[" * 3_000, "expected JSON"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=rf"summary\.json: {message}"):
            read_json(path)
    path.write_bytes(b"epoch \xff")
    with pytest.raises(UserError, match=r"summary\.json: expected text in UTF-8"):
        read_text(path)


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl"])
def test_no_flipped_bit_gives_another_record(name: str, tmp_path: Path) -> None:
    path, record = tmp_path / name, {"epoch": 10, "name": "größe", "loss": 0.1, "layers": [{"alive": None}]}
    (write_json if name == "summary.json" else append)(path, record)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = [read_json(path)] if name == "summary.json" else read_lines(path)
        except UserError as error:
            assert name in str(error)
            continue
        assert found in ([record], [])  # without its end a last line is one that was cut off


def test_records_without_a_checksum_are_taken_as_they_are(tmp_path: Path) -> None:
    record = {"epoch": 1, "loss": 0.5}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert read_json(tmp_path / "run.json") == record
    write_json(tmp_path / "run.json", record)
    assert json.loads((tmp_path / "run.json").read_text()).keys() == {*record, "sha256"}
    assert read_json(tmp_path / "run.json") == record
