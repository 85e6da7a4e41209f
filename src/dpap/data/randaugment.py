"""RandAugment (Cubuk et al., arXiv 1909.13719) and random erasing (Zhong et al., arXiv 1708.04896) of batches of bytes.

Integers throughout, and numbers drawn on the generator's device: every device computes the same bytes. The operations
are Pillow's to one level; their strengths those of "rand-m9-mstd0.5-inc1" in timm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional

Images = UInt8[Tensor, "batch channel height width"]
OPERATIONS = (
    *("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add", "brightness"),
    *("contrast", "colour", "sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
TABLES = ("invert", "posterize", "solarize", "solarize_add", "brightness")
"""Operations that give each byte a new one, whatever the image."""
TRANSFORMS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
"""Operations that move pixels."""
FULL = 10.0
"""The largest magnitude."""
FILL = 128
"""The byte of pixels that come from outside."""
ONE = 1 << 16
"""1 in fixed point."""


@dataclass(frozen=True)
class RandAugment:
    """So many operations in turn on each image, each drawn from `OPERATIONS` and skipped with probability 1/2.

    Attributes:
        magnitude: mean strength, from 0 to 10.
        deviation: of the strength of each operation, which is normally distributed and cut to [0, 10].
        operations: on one image.
    """

    magnitude: float = 9.0
    deviation: float = 0.5
    operations: int = 2

    def __call__(self, batch: Images, generator: Generator) -> Images:
        """Augment each image by itself."""
        shape = (self.operations, len(batch))
        which = torch.randint(len(OPERATIONS), shape, generator=generator)
        skipped = torch.rand(shape, generator=generator) < 0.5
        strength = torch.randn(shape, generator=generator) * self.deviation + self.magnitude
        strength = (strength / FULL).clamp(0, 1)
        sign = 1 - 2 * torch.randint(2, shape, generator=generator)
        for each, idle, level, side in zip(which, skipped, strength, sign, strict=True):
            batch = apply(batch, each.masked_fill(idle, -1), level, side)
        return batch


@dataclass(frozen=True)
class RandomErasing:
    """A rectangle of 2 to 33 % of some images becomes uniform noise; its sides are as 0.3 to 3.3 to one.

    Attributes:
        probability: of an image to lose a rectangle.
    """

    probability: float = 0.25

    def __call__(self, batch: Images, generator: Generator) -> Images:
        """Erase in each image by itself."""
        samples, (height, width) = len(batch), batch.shape[-2:]
        chosen = torch.rand(samples, generator=generator) < self.probability
        area = (0.02 + (1 / 3 - 0.02) * torch.rand(samples, generator=generator)) * height * width
        ratio = (math.log(0.3) + math.log(11) * torch.rand(samples, generator=generator)).exp()
        inside = []
        for size, side in ((height, (area * ratio).sqrt()), (width, (area / ratio).sqrt())):
            length = side.round().clamp(1, size)
            first = (torch.rand(samples, generator=generator) * (size - length + 1)).floor()
            place = torch.arange(size)
            inside.append((place >= first[:, None]) & (place < (first + length)[:, None]))
        noise = torch.randint(256, batch.shape, generator=generator, dtype=torch.uint8)
        hole = (chosen[:, None, None] & inside[0][:, :, None] & inside[1][:, None, :])[:, None]
        hole, noise = (part.to(batch.device, non_blocking=True) for part in (hole, noise))
        return torch.where(hole, noise, batch)


def apply(
    batch: Images, which: Int[Tensor, "batch"], strength: Float[Tensor, "batch"], sign: Int[Tensor, "batch"]
) -> Images:
    """One operation on each image.

    Args:
        batch: of one channel, or of red, green and blue; on any device.
        which: position in `OPERATIONS`; -1 leaves the image as it is. On the CPU, as the two that follow.
        strength: from 0 to 1.
        sign: 1 or -1: to which side.
    """
    if batch.dim() != 4 or batch.shape[1] not in (1, 3):
        raise ValueError(
            "RandAugment is for images [batch, channel, height, width] of 1 or 3 channels; got shape "
            f"{tuple(batch.shape)}; set data.randaugment to 0"
        )
    result = batch.clone()
    for names, function in GROUPS:
        numbers = [OPERATIONS.index(name) for name in names]
        # found on the CPU, so that nothing waits for the device
        rows = torch.isin(which, torch.tensor(numbers)).nonzero().squeeze(1)
        if len(rows):
            there = rows.to(batch.device, non_blocking=True)
            changed = function(batch[there], which[rows], strength[rows], sign[rows])
            result.index_copy_(0, there, changed)
    return result


def _factor(strength: Tensor, sign: Tensor) -> Tensor:
    """By how much colour, contrast, brightness and sharpness are multiplied, in fixed point: about 0.1 to 1.9."""
    return ((1 + 0.9 * strength * sign).clamp(min=0.1) * ONE).round().int()


def _blend(plain: Tensor, images: Images, factor: Tensor) -> Images:
    """From the plain image at factor 0 to the image at 1, and beyond."""
    factor = factor.to(images.device, non_blocking=True)[:, None, None, None]
    plain = plain.int()
    mixed = plain * ONE + factor * (images.int() - plain)
    return (mixed >> 16).clamp(0, 255).to(torch.uint8)


def _grey(images: Images) -> Int[Tensor, "batch 1 height width"]:
    """ITU-R 601-2 luma, as Pillow rounds it."""
    if images.shape[1] == 1:
        return images.int()
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def _look_up(images: Images, table: Int[Tensor, "batch channels 256"]) -> Images:
    table = table.to(images.device, torch.uint8, non_blocking=True)
    flat = images.flatten(2).long()
    return table.expand(-1, flat.shape[1], -1).gather(2, flat).view(images.shape)


def _tables(images: Images, which: Tensor, strength: Tensor, sign: Tensor) -> Images:
    """The operations of `TABLES`."""
    byte = torch.arange(256)
    strength, factor = strength[:, None], _factor(strength, sign)[:, None]
    bits = 4 - (strength * 4).int()
    threshold = 256 - (strength * 256).int()
    added = (byte + (strength * 110).int()).clamp(max=255)
    made = {
        "invert": (255 - byte).expand(len(images), -1),
        "posterize": byte & ~((1 << (8 - bits)) - 1),
        "solarize": torch.where(byte < threshold, byte, 255 - byte),
        "solarize_add": torch.where(byte < 128, added, byte),
        "brightness": ((byte * factor) >> 16).clamp(max=255),
    }
    table = torch.zeros(len(images), 256, dtype=torch.int64)
    for name in TABLES:
        table = torch.where((which == OPERATIONS.index(name))[:, None], made[name], table)
    return _look_up(images, table[:, None])


def _auto_contrast(images: Images, which: Tensor, strength: Tensor, sign: Tensor) -> Images:
    """Each channel is stretched to all of 0 to 255."""
    flat = images.flatten(2).int()
    low, high = flat.amin(2)[..., None, None], flat.amax(2)[..., None, None]
    stretched = (images.int() - low) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, stretched, images.int()).to(torch.uint8)


def _equalize(images: Images, which: Tensor, strength: Tensor, sign: Tensor) -> Images:
    """Each channel gets a flat histogram, as far as that goes."""
    flat = images.flatten(2).long()
    count = torch.zeros(*flat.shape[:2], 256, dtype=torch.int64, device=images.device)
    count.scatter_add_(2, flat, torch.ones_like(flat))
    largest = flat.amax(2, keepdim=True)
    step = (flat.shape[2] - count.gather(2, largest)) // 255
    table = (step // 2 + count.cumsum(2) - count) // step.clamp(min=1)
    byte = torch.arange(256, device=images.device)
    return _look_up(images, torch.where(step > 0, table.clamp(max=255), byte))


def _contrast(images: Images, which: Tensor, strength: Tensor, sign: Tensor) -> Images:
    grey = _grey(images).flatten(1).sum(1)
    pixels = images.shape[-1] * images.shape[-2]
    mean = (2 * grey + pixels) // (2 * pixels)
    return _blend(mean[:, None, None, None], images, _factor(strength, sign))


def _colour(images: Images, which: Tensor, strength: Tensor, sign: Tensor) -> Images:
    return _blend(_grey(images), images, _factor(strength, sign))


def _sharpness(images: Images, which: Tensor, strength: Tensor, sign: Tensor) -> Images:
    """From 3 x 3 means with 5 parts of 13 in the middle, but at the border, to beyond the image."""
    wide = images.int()
    height, width = images.shape[-2:]
    smooth = wide
    if min(height, width) >= 3:
        windows = [
            wide[..., row : row + height - 2, column : column + width - 2]
            for row in range(3)
            for column in range(3)
        ]
        middle = (2 * (sum(windows) + 4 * windows[4]) + 13) // 26
        smooth = functional.pad(middle, [1] * 4)
        inner = functional.pad(torch.ones_like(middle, dtype=torch.bool), [1] * 4)
        smooth = torch.where(inner, smooth, wide)
    return _blend(smooth, images, _factor(strength, sign))


def _transform(images: Images, which: Tensor, strength: Tensor, sign: Tensor) -> Images:
    """The operations of `TRANSFORMS`: by up to 30 degrees, 0.3 and 45 % of the side, between pixels bilinear."""
    height, width = images.shape[-2:]
    level = strength.double() * sign
    is_ = {name: which == OPERATIONS.index(name) for name in TRANSFORMS}
    angle = torch.where(is_["rotate"], level * math.radians(30), 0)
    cos, sin = angle.cos(), angle.sin()
    # (x, y) of the source = matrix of (x, y) of the result + shift, of pixels' centres
    matrix = [
        [cos, torch.where(is_["shear_x"], 0.3 * level, -sin)],
        [torch.where(is_["shear_y"], 0.3 * level, sin), cos],
    ]
    middle = (width / 2, height / 2)
    place = [torch.arange(width) + 0.5, torch.arange(height) + 0.5]
    at = []
    for axis, name in enumerate(("translate_x", "translate_y")):
        size = (width, height)[axis]
        centre = middle[axis] - matrix[axis][0] * middle[0] - matrix[axis][1] * middle[1]
        shift = torch.where(is_["rotate"], centre, torch.where(is_[name], 0.45 * size * level, 0))
        terms = [part[:, None] * place[other] for other, part in enumerate(matrix[axis])]
        source = terms[0][:, None, :] + terms[1][:, :, None] + shift[:, None, None]
        at.append((source * ONE).round().long())
    return _bilinear(images, *(part.to(images.device, non_blocking=True) for part in at))


def _bilinear(images: Images, x: Int[Tensor, "batch h w"], y: Int[Tensor, "batch h w"]) -> Images:
    """The images at these places, in fixed point and counted from their corner; `FILL` outside."""
    height, width = images.shape[-2:]
    there = (x >= 0) & (x < width * ONE) & (y >= 0) & (y < height * ONE)
    x, y = x - ONE // 2, y - ONE // 2
    flat = images.flatten(2).long()
    total = torch.zeros_like(flat)
    for right in (0, 1):
        for down in (0, 1):
            column, row = ((x >> 16) + right).clamp(0, width - 1), ((y >> 16) + down).clamp(0, height - 1)
            share_x, share_y = x & (ONE - 1), y & (ONE - 1)
            share = (share_x if right else ONE - share_x) * (share_y if down else ONE - share_y)
            pixel = (row * width + column).flatten(1)[:, None].expand(flat.shape)
            total += flat.gather(2, pixel) * share.flatten(1)[:, None]
    mixed = ((total + (1 << 31)) >> 32).view(images.shape)
    return torch.where(there[:, None], mixed, FILL).to(torch.uint8)


Operation = Callable[[Images, Tensor, Tensor, Tensor], Images]
GROUPS: tuple[tuple[tuple[str, ...], Operation], ...] = (
    (TABLES, _tables),
    (("auto_contrast",), _auto_contrast),
    (("equalize",), _equalize),
    (("contrast",), _contrast),
    (("colour",), _colour),
    (("sharpness",), _sharpness),
    (TRANSFORMS, _transform),
)
"""Operations that are computed together."""
