"""Files as users have them: pictures, arrays, recordings; each is the sample that the data set would give."""

import io
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dpap.data import DataConfig, load_data
from dpap.data.kind import SampleKind, kind_of
from dpap.data.single import SingleFiles


def reader(name: str, resize: bool = False, **options: Any) -> SingleFiles:
    config = DataConfig(name=name, **options)
    kind = kind_of(config)
    assert kind is not None
    return SingleFiles(kind, config, resize)


def one(files: SingleFiles, path: Path) -> Any:
    (sample,) = files.read(path)
    return sample


def saved(path: Path, pixels: Any, **options: Any) -> Path:
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def arrays(path: Path, values: Any) -> Path:
    np.save(path, values)
    return path


@pytest.mark.parametrize("normalise", [False, True])
def test_pictures_of_test_images_are_the_test_images(
    tmp_path: Path, normalise: bool, cifar_root: Path
) -> None:
    digits = load_data(DataConfig(normalise=normalise)).test
    x, _ = next(digits.batches(20))
    for number, image in enumerate(digits.data[digits.index[:20]].double() * 255 / 16):  # type: ignore[attr-defined]
        path = saved(tmp_path / f"{number}.png", image[0].round())
        assert torch.equal(one(reader("digits", normalise=normalise), path).x, x[number])
    config = DataConfig(name="cifar10", root=str(cifar_root), normalise=normalise)
    cifar = load_data(config).test
    x, _ = next(cifar.batches(8))
    for number, image in enumerate(cifar.data):  # type: ignore[attr-defined]
        path = saved(tmp_path / f"{number}.PNG", image.permute(1, 2, 0))
        sample = one(reader("cifar10", normalise=normalise), path)
        assert torch.equal(sample.x, x[number])
        assert sample.notes == ()


@pytest.mark.parametrize("normalise", [False, True])
def test_arrays_are_the_same_in_every_layout_and_type(
    tmp_path: Path, normalise: bool, cifar_root: Path
) -> None:
    cifar = load_data(DataConfig(name="cifar10", root=str(cifar_root), normalise=normalise)).test
    images, (x, _) = cifar.data.numpy(), next(cifar.batches(8))  # type: ignore[attr-defined]
    files = reader("cifar10", normalise=normalise)
    for each in (
        images[1],
        images[1].transpose(1, 2, 0),
        images[1].astype(np.int64),
        images[1].astype(">f4") / 255,
    ):
        assert torch.equal(one(files, arrays(tmp_path / "x.npy", each)).x, x[1])
    for each in (images, np.asfortranarray(images), images.transpose(0, 2, 3, 1)):
        samples = list(files.read(arrays(tmp_path / "x.npy", each)))
        assert torch.equal(torch.stack([sample.x for sample in samples]), x)
        assert [sample.file for sample in samples] == [
            f"{tmp_path / 'x.npy'}[{number}]" for number in range(8)
        ]
    flat = np.arange(64).reshape(8, 8) % 250
    for each in (flat, flat[None]):
        found = one(reader("digits"), arrays(tmp_path / "x.npy", each)).x
        assert torch.equal(found, torch.from_numpy((flat[None] * 16 + 127) // 255).float() / 16)


def test_recordings_are_the_test_recordings(tmp_path: Path, nmnist_root: Path) -> None:
    for options in ({}, {"frames": "binary", "downsample": 2}):
        config = {"timesteps": 4, **options}
        data = load_data(DataConfig(name="nmnist", root=str(nmnist_root), cache=str(tmp_path), **config))  # type: ignore[arg-type]
        x, _ = next(data.test.batches(4))
        files = reader("nmnist", **config)
        paths, others = files.listed([nmnist_root / "NMNIST" / "Test"])
        assert (len(paths), others) == (4, 0)
        for number, path in enumerate(paths):
            assert torch.equal(one(files, path).x, x[:, number])
        counts = data.test.data[0].numpy()  # type: ignore[attr-defined]
        for each in (counts, counts.astype(np.float64), counts[None]):
            assert torch.equal(one(files, arrays(tmp_path / "x.npy", each)).x, x[:, 0])


def test_trials_where_labels_lie_beside_else_the_whole(tmp_path: Path, formats: Any) -> None:
    events = formats.random_events(3, 400, 128, 50_000, begin=700)
    path = tmp_path / "one.aedat"
    path.write_bytes(formats.aedat_bytes([(1, 0, [(event, True) for event in events])]))
    files = reader("dvs_gesture", timesteps=5)
    begin, end = events[0][3], events[-1][3] + 1
    whole = one(files, path)
    assert torch.equal(whole.x.long(), torch.from_numpy(formats.slow_frames(events, 5, 128, begin, end, 4)))
    labels = tmp_path / "one_labels.csv"
    labels.write_text("class,startTime_usec,endTime_usec\n1,10000,20000\n8,20000,33333\n")
    samples = list(files.read(path))
    assert [sample.file for sample in samples] == [f"{path}[0]", f"{path}[1]"]
    inside = [event for event in events if 20_000 <= event[3] < 33_333]
    expected = torch.from_numpy(formats.slow_frames(inside, 5, 128, 20_000, 33_333, 4))
    assert torch.equal(samples[1].x.long(), expected)
    labels.write_text("class,startTime_usec,endTime_usec\n")
    with pytest.raises(ValueError, match="no trial"):
        list(files.read(path))
    path.write_bytes(formats.aedat_bytes([(1, 0, [(events[0], False)])]))
    labels.unlink()
    with pytest.raises(ValueError, match="at least one event"):
        list(files.read(path))
    path.write_bytes(formats.aedat_bytes([(1, 2**30, [(events[0], True)])]))
    with pytest.raises(ValueError, match="must have times from 0"):
        list(files.read(path))


def test_colours_and_sizes_are_converted_and_noted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (8, 8, 3))
    files = reader("mnist", resize=True)
    sample = one(files, saved(tmp_path / "x.png", colours))
    assert sample.x.shape == (1, 28, 28)
    assert [note.split()[0] for note in sample.notes] == ["colours", "resized"]
    sample = one(reader("digits"), saved(tmp_path / "x.png", colours))
    luminance = colours @ [0.299, 0.587, 0.114]
    assert np.abs(sample.x.numpy()[0] * 255 - luminance).max() < 9  # of 17 levels
    grey = rng.integers(0, 256, (32, 32))
    sample = one(reader("cifar10"), saved(tmp_path / "x.png", grey))
    assert sample.notes == ("grey became three equal channels",)
    assert torch.equal(sample.x, torch.from_numpy(grey).float().div(255).expand(3, 32, 32))
    # three equal channels, a palette, or a picture that is nowhere transparent, lose nothing by becoming grey
    for number, picture in enumerate(
        (
            Image.fromarray(np.repeat(grey[..., None], 3, -1).astype(np.uint8)),
            Image.fromarray(grey.astype(np.uint8)).convert("P"),
            Image.fromarray(grey.astype(np.uint8)).convert("RGBA"),
            Image.fromarray(grey.astype(np.uint8)).convert("LA"),
        )
    ):
        path = tmp_path / f"{number}.png"
        picture.resize((28, 28), Image.Resampling.NEAREST).save(path)
        sample = one(reader("mnist"), path)
        assert sample.notes == ()
        expected = np.asarray(
            Image.fromarray(grey.astype(np.uint8)).resize((28, 28), Image.Resampling.NEAREST)
        )
        assert torch.equal(sample.x[0], torch.from_numpy(expected.copy()).float().div(255))


def test_a_picture_lies_as_the_camera_was_held(tmp_path: Path) -> None:
    upright = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown clockwise by a quarter
    upright.rotate(90).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    upright.save(tmp_path / "upright.jpg", quality=100)
    turned, straight = (one(reader("digits"), tmp_path / f"{name}.jpg").x for name in ("turned", "upright"))
    assert (turned - straight).abs().max() <= 1 / 16
    wide = Image.new("L", (28, 14), 9)
    wide.save(tmp_path / "wide.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"expected 28x28 pixels \(width x height\), got 14x28"):
        one(reader("mnist"), tmp_path / "wide.jpg")


def bomb(width: int, height: int) -> bytes:
    """A PNG file of few bytes that would unpack to that many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def npy(shape: str, dtype: str = "|u1") -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": dtype, "fortran_order": False, "shape": ()})  # type: ignore[no-untyped-call]
    return content.getvalue().replace(b"'shape': (), ", f"'shape': {shape}, ".encode())


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.png", b"", "no whole PNG or JPEG"),
        ("x.jpg", b"\xff\xd8\xff", "no whole PNG or JPEG"),
        ("x.png", b"GIF89a" + bytes(40), "no whole PNG or JPEG"),
        ("x.png", bomb(8, 8), "no whole PNG or JPEG"),
        ("x.png", bomb(12_000, 12_000), "DecompressionBombWarning|expected 8x8 pixels"),
        ("x.png", bomb(60_000, 60_000), "DecompressionBombError|expected 8x8 pixels"),
        ("x.npy", b"", "no whole .npy"),
        ("x.npy", b"\x93NUMPY\x01\x00\xff\xff", "no whole .npy"),
        ("x.npy", npy("(100000, 100000, 8, 8)"), "no whole .npy"),
        ("x.npy", npy("(8, 8)", "|O") + bytes(64), "no whole .npy"),
        ("x.npy", npy("(8, 8)") + b"\x00" * 20, "no whole .npy"),
        ("x.npy", npy("(8, 8)", "<U1") + bytes(256), "an array of numbers"),
        ("x.npy", npy("(8, 9)") + bytes(72), r"array of \[1, 8, 8\] or \[8, 8\]"),
        ("x.npy", npy("(0, 8, 8)"), r"holds no sample: .* is empty \(\[0, 8, 8\]\)"),
        ("x.npy", npy("(8, 8)", "<f4") + b"\x00\x00\x80\x7f" * 64, "finite"),
        ("x.npy", npy("(8, 8)", "<f4") + b"\x00\x00\x00\x40" * 64, r"floats in \[0, 1\]"),
        ("x.npy", npy("(8, 8)", "<i2") + b"\x00\x01" * 64, "whole numbers from 0 to 255"),
        ("x.gif", b"", r"ends in \.png, \.jpg, \.jpeg, \.npy"),
        ("x", b"", "ends in"),
    ],
)
def test_what_is_damaged_or_something_else_is_named(
    resize: bool, name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    files = reader("digits", resize=resize)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            list(files.read(path))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("pixels", "mode", "message"),
    [
        (np.zeros((8, 8), np.uint16), None, "8 bits a channel"),
        (np.full((8, 8, 4), 100, np.uint8), "RGBA", "transparent"),
    ],
)
def test_pictures_that_no_rule_is_for(pixels: Any, mode: str | None, message: str, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=message):
        one(reader("digits"), tmp_path / "x.png")


def test_events_are_read_from_recordings_only(tmp_path: Path) -> None:
    files = reader("nmnist")
    saved(tmp_path / "x.png", np.zeros((34, 34)))
    with pytest.raises(ValueError, match=r"ends in \.bin, \.npy"):
        one(files, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"array of \[8, 2, 34, 34\]"):
        one(files, arrays(tmp_path / "x.npy", np.zeros((5, 2, 34, 34), np.uint8)))
    with pytest.raises(ValueError, match="counts of events"):
        one(files, arrays(tmp_path / "x.npy", np.full((8, 2, 34, 34), 0.5)))
    (tmp_path / "x.bin").write_bytes(bytes(7))
    with pytest.raises(ValueError, match="whole events"):
        one(files, tmp_path / "x.bin")
    with pytest.raises(FileNotFoundError):
        one(files, tmp_path / "nowhere.npy")


def test_a_data_set_of_ones_own_gives_its_samples_as_arrays(tmp_path: Path) -> None:
    kind = SampleKind("own:data", (2, 4, 4), 3, None, ())
    files = SingleFiles(kind, DataConfig(name="own:data"))
    values = np.random.default_rng(0).normal(size=(2, 4, 4))
    assert torch.equal(one(files, arrays(tmp_path / "x.npy", values)).x, torch.from_numpy(values).float())
    with pytest.raises(ValueError, match="expected floats"):
        one(files, arrays(tmp_path / "x.npy", np.zeros((2, 4, 4), np.uint8)))
    with pytest.raises(ValueError, match="finite"), np.errstate(over="ignore"):
        one(files, arrays(tmp_path / "x.npy", np.full((2, 4, 4), 1e300)))
    with pytest.raises(ValueError, match=r"ends in \.npy, for own:data makes its samples itself"):
        one(files, tmp_path / "x.png")


def test_folders_are_read_whole_and_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "a.jpeg", "c/d/e.npy", "c/notes.txt", ".hidden/x.png", "b/.x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files, others = reader("digits").listed([tmp_path / "c", tmp_path, Path("explicit.txt")])
    expected = ["c/d/e.npy", "a.jpeg", "b/10.JPG", "b/2.png", "c/d/e.npy"]
    assert files == [*(tmp_path / name for name in expected), Path("explicit.txt")]
    assert others == 2
