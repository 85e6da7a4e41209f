"""Single files that are classified: pictures and arrays."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from fuzz_kinds import Kind
from PIL import Image

from dpap.data import DataConfig
from dpap.data.kind import kind_of
from dpap.data.single import SingleFiles


def _read(folder: Path, name: str, resize: bool) -> list[object]:
    """All files of the folder; an error names the file, as `dpap predict` does."""
    config = DataConfig(name=name, timesteps=2)
    kind = kind_of(config)
    assert kind is not None, "the data set is built in"
    reader = SingleFiles(kind, config, resize)
    samples: list[object] = []
    for path in reader.listed([folder])[0]:
        try:
            samples += reader.read(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return samples


def pictures(resize: bool) -> Kind:
    """PNG and JPEG files of several modes."""
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    grey, colours, opaque = (Image.fromarray(each) for each in (pixels[..., 0], pixels[..., :3], pixels))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {}
    for name, picture, options in (
        ("grey.png", grey, {}),
        ("palette.png", grey.convert("P"), {}),
        ("opaque.png", opaque, {}),
        ("colours.jpg", colours, {"exif": exif}),
        ("grey.jpg", grey, {"progressive": True}),
    ):
        content = io.BytesIO()
        picture.save(content, "JPEG" if name.endswith("jpg") else "PNG", **options)
        files[name] = content.getvalue()
    return Kind(files, partial(_read, name="cifar10", resize=resize))


def arrays() -> Kind:
    """Files of numpy's: counts of events, in several types."""
    counts = np.random.default_rng(4).integers(0, 3, (2, 2, 34, 34))
    files = {}
    for name, values in (
        ("bytes.npy", counts.astype(np.uint8)),
        ("floats.npy", np.asfortranarray(counts.astype(">f4"))),
        ("several.npy", np.stack([counts, counts]).astype(np.int16)),
    ):
        content = io.BytesIO()
        np.save(content, values)
        files[name] = content.getvalue()
    return Kind(files, partial(_read, name="nmnist", resize=False))


KINDS: dict[str, Callable[[], Kind]] = {
    "pictures": lambda: pictures(resize=False),
    "pictures, resized": lambda: pictures(resize=True),
    "arrays": arrays,
}
