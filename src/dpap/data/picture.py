"""PNG and JPEG files as pixels, by Pillow."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
"""No other decoder of Pillow's reads a file, whatever its name says."""
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
"""Pillow's modes of up to 8 bits a channel."""
GREY = {"1", "L", "LA"}
ORIENTATION, LYING = 0x0112, (5, 6, 7, 8)
"""The entry of a camera's notes that says how it was held, and its values for which the sides are swapped."""


def read_picture(
    path: Path, shape: tuple[int, int, int], resize: bool
) -> tuple[UInt8[np.ndarray, "channel height width"], tuple[str, ...]]:
    """Pixels 0 to 255, and notes on what was converted.

    Args:
        path: of a PNG or JPEG file.
        shape: (C, H, W) that is expected; of one channel colours become their luminance, of three a grey picture three
            equal channels.
        resize: bring pictures of another size to the one that is expected, without keeping their proportions.

    Raises:
        OSError: there is no such file.
        ValueError: it is no PNG or JPEG file, damaged, or not of this size; it has more pixels than Pillow takes for
            safe, more than 8 bits a channel, or is transparent somewhere.
    """
    from PIL import Image

    channels, *sides = shape
    if channels not in (1, 3):
        raise ValueError(f"the network takes {channels} channels, a picture has 1 or 3: give an array (.npy)")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow only warns of a few bytes that would fill the memory, up to twice as many pixels as it takes for safe
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=FORMATS) as picture:
                return _pixels(picture, channels, (sides[0], sides[1]), resize)
        except _Unfitting as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # decoders fail in many ways on damaged files
            raise ValueError(f"it is no whole PNG or JPEG file ({type(error).__name__}: {error})") from error


class _Unfitting(Exception):
    """The picture is whole, and not what the network takes."""


def _pixels(
    picture: "Image", channels: int, sides: tuple[int, int], resize: bool
) -> tuple[UInt8[np.ndarray, "channel height width"], tuple[str, ...]]:
    from PIL import Image, ImageOps

    notes = []
    lying = picture.format == "JPEG" and picture.getexif().get(ORIENTATION) in LYING
    size = picture.size[::-1] if lying else picture.size
    expected = (sides[1], sides[0])
    # nothing is decoded before this
    if size != expected and not resize:
        raise _Unfitting(
            f"expected {expected[0]}x{expected[1]} pixels (width x height), got {size[0]}x{size[1]}: give pictures of "
            "that size, or let them be brought to it (--resize)"
        )
    if picture.mode not in EIGHT_BITS:
        raise _Unfitting(f"expected up to 8 bits a channel, got pixels of Pillow's mode {picture.mode!r}")
    if picture.format == "JPEG":
        picture = ImageOps.exif_transpose(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema() != (255, 255):
            raise _Unfitting(
                "it is transparent: lay it onto the background that the network was trained with"
            )
        picture = picture.convert("RGB")
    colours = picture if picture.mode in GREY else picture.convert("RGB")
    grey = colours.mode in GREY or _is_grey(colours)
    if channels == 1 and not grey:
        notes.append("colours became grey (0.299 R + 0.587 G + 0.114 B)")
    elif channels == 3 and grey:
        notes.append("grey became three equal channels")
    picture = colours.convert("L" if channels == 1 else "RGB")
    if size != expected:
        picture = picture.resize(expected, Image.Resampling.BILINEAR)
        notes.append(f"resized to {expected[0]}x{expected[1]} pixels")
    pixels = np.asarray(picture)
    return (pixels[None] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))), tuple(notes)


def _is_grey(picture: "Image") -> bool:
    red, green, blue = (np.asarray(picture.getchannel(each)) for each in "RGB")
    return bool((red == green).all() and (green == blue).all())
