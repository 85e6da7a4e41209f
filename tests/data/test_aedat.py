import struct
import tracemalloc

import numpy as np
import pytest

from dpap.data.aedat import read_aedat

EVENT = (127, 3, 1, 1000)


def test_valid_polarity_events_are_read(tmp_path, formats):
    path = tmp_path / "a.aedat"
    other = [((9, 9, 0, 5), True)] * 3
    packets = [
        (1, 0, [((1, 2, 0, 10), True), (EVENT, True), ((5, 5, 1, 1001), False)]),
        (0, 0, other),  # special events
        (1, 0, []),
        (1, 2, [((32767, 32766, 1, 7), True)]),
    ]
    path.write_bytes(formats.aedat_bytes(packets))
    (events,) = read_aedat(path)
    got = list(
        zip(*(part.tolist() for part in (events.x, events.y, events.polarity, events.time)), strict=True)
    )
    assert got == [(1, 2, 0, 10), EVENT, (32767, 32766, 1, 2 * 2**31 + 7)]


def test_no_packets(tmp_path, formats):
    path = tmp_path / "a.aedat"
    path.write_bytes(formats.aedat_bytes([]))
    assert list(read_aedat(path)) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"#!AER-DAT2.0" + raw[12:], "must start with #!AER-DAT3.1; got b'#!AER-DAT2.0'"),
        (lambda raw: b"", "must start with"),
        (lambda raw: raw[:40], "header that ends with the line #!END-HEADER"),
        (lambda raw: raw.replace(b"#!END-HEADER\r\n", b""), "header that ends"),
        (lambda raw: raw[:-3], "must have 2 events of 8 bytes .* got 13 bytes: it is cut short"),
        (lambda raw: raw + bytes(5), "ends in a packet header: 28 bytes expected, got 5"),
        (lambda raw: raw + struct.pack("<hhiiiiii", 1, 0, 16, 4, 0, 0, 0, 0), "polarity events of 8 bytes"),
        (lambda raw: raw + struct.pack("<hhiiiiii", 1, 0, 8, 4, 0, -1, -1, -1), "must have -1 events"),
        (
            lambda raw: raw + struct.pack("<hhiiiiii", 1, 0, 8, 4, -1, 0, 0, 0),
            "0 overflows or more; got 8, 4 and -1",
        ),
        (
            lambda raw: raw + struct.pack("<hhiiiiii", 1, 0, 2**31 - 1, 4, 0, 0, 2**31 - 1, 0),
            "it is cut short",
        ),
        (lambda raw: raw[:12] + b"#" * 9000, "header that ends"),
    ],
)
def test_damage_is_named(tmp_path, formats, damage, message):
    path = tmp_path / "a.aedat"
    path.write_bytes(damage(formats.aedat_bytes([(1, 0, [(EVENT, True), (EVENT, True)])])))
    with pytest.raises(ValueError, match=message) as caught:
        list(read_aedat(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("part", [1, 2, 3, 7])
def test_packets_and_parts_need_not_end_together(tmp_path, formats, monkeypatch, part):
    monkeypatch.setattr("dpap.data.aedat.PART", part)
    events = formats.random_events(0, 12, 128, 1000)
    path = tmp_path / "a.aedat"
    sizes = [5, 0, 1, 6]
    packets = [(1, 0, [(events.pop(0), True) for _ in range(size)]) for size in sizes]
    path.write_bytes(formats.aedat_bytes(packets))
    parts = list(read_aedat(path))
    assert [len(each) for each in parts[:-1]] == [part] * (len(parts) - 1) and len(parts) == -(-12 // part)
    times = np.concatenate([each.time for each in parts]).tolist()
    assert times == [event[3] for event in formats.random_events(0, 12, 128, 1000)]


@pytest.mark.parametrize("packet", [400_000, 200])
def test_a_recording_is_never_held(tmp_path, packet):
    path, events = tmp_path / "long.aedat", 400_000
    with path.open("wb") as file:
        file.write(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n")
        for _ in range(events // packet):
            file.write(struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, packet, packet, packet))
            file.write(np.ones((packet, 2), "<u4").tobytes())
    assert sum(map(len, read_aedat(path))) == events
    tracemalloc.start()
    try:
        for _ in read_aedat(path):
            pass
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size
    finally:
        tracemalloc.stop()
