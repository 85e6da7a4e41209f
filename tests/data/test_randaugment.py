"""RandAugment and random erasing, beside Pillow's operations on one image at a time."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from dpap.data import DataConfig
from dpap.data.cifar import CIFAR10
from dpap.data.digits import DIGITS
from dpap.data.nmnist import NMNIST
from dpap.data.randaugment import FILL, OPERATIONS, RandAugment, RandomErasing, apply
from dpap.data.split import TensorSplit
from dpap.data.user import read_user


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(number: int, channels: int = 3, height: int = 20, width: int = 18, seed: int = 0) -> torch.Tensor:
    """Smooth bytes of differing range, so that no operation is blind to them."""
    coarse = torch.rand(number, channels, 4, 4, generator=seeded(seed)) * 200 + 20
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (fine + torch.rand(fine.shape, generator=seeded(seed + 1)) * 30).clamp(0, 255).to(torch.uint8)


def by_pillow(name: str, image: Image.Image, strength: float, sign: int) -> Image.Image:
    """The operation as timm's `rand-...-inc1` strengths have it."""
    factor = max(0.1, 1 + 0.9 * strength * sign)
    fill = (FILL,) * 3 if image.mode == "RGB" else FILL

    def moved(*matrix: float) -> Image.Image:
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill
        )

    def brighter(value: int) -> int:
        return min(255, value + int(strength * 110)) if value < 128 else value

    level = strength * sign
    width, height = image.size
    made = {
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "invert": lambda: ImageOps.invert(image),
        "posterize": lambda: ImageOps.posterize(image, 4 - int(strength * 4)),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(strength * 256)),
        "solarize_add": lambda: image.point(
            [brighter(value) for value in range(256)] * len(image.getbands())
        ),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "colour": lambda: ImageEnhance.Color(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "rotate": lambda: image.rotate(level * 30, Image.Resampling.BILINEAR, fillcolor=fill),
        "shear_x": lambda: moved(1, 0.3 * level, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, 0.3 * level, 1, 0),
        "translate_x": lambda: moved(1, 0, 0.45 * width * level, 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, 0.45 * height * level),
    }
    return made[name]()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name, channels):
    """To one level, for Pillow computes in floats, and truncates."""
    batch = images(6, channels)
    strength = torch.tensor([0.0, 0.13, 0.5, 0.77, 0.9, 0.95])
    sign = torch.tensor([1, 1, -1, 1, -1, 1])
    which = torch.full((6,), OPERATIONS.index(name))
    got = apply(batch, which, strength, sign)
    assert got.dtype == torch.uint8 and got.shape == batch.shape
    changed = 0
    for one, after, level, side in zip(batch, got, strength.tolist(), sign.tolist(), strict=True):
        array = one.permute(1, 2, 0).numpy()
        image = Image.fromarray(array if channels == 3 else array[..., 0])
        expected = np.asarray(by_pillow(name, image, level, side)).reshape(array.shape)
        away = np.abs(after.permute(1, 2, 0).numpy().astype(int) - expected.astype(int))
        assert away.max() <= 1
        changed += bool((after != one).any())
    assert changed >= (0 if channels == 1 and name == "colour" else 3)


def test_an_image_of_one_colour_survives_what_divides_by_its_range():
    flat = torch.full((2, 3, 4, 4), 77, dtype=torch.uint8)
    which = torch.tensor([OPERATIONS.index("auto_contrast"), OPERATIONS.index("equalize")])
    assert torch.equal(apply(flat, which, torch.ones(2), torch.ones(2, dtype=torch.int64)), flat)


def test_images_are_augmented_one_by_one():
    """Each of a batch gets its own operations, and some none."""
    one = images(1)
    batch = one.expand(400, -1, -1, -1)
    got = RandAugment()(batch, seeded(0))
    different = {each.numpy().tobytes() for each in got}
    same = (got == one).flatten(1).all(1).float().mean()
    assert len(different) > 150
    assert 0.2 < same < 0.4  # neither of two operations: a quarter, and what leaves this image as it is


def test_magnitude_is_a_mean_of_strengths():
    """Strong operations move an image further than weak ones."""
    batch = images(200)
    distance = [
        (RandAugment(magnitude)(batch, seeded(0)).int() - batch.int()).abs().float().mean()
        for magnitude in (1.0, 9.0)
    ]
    assert distance[1] > 1.2 * distance[0]


def test_erased_is_a_rectangle_of_noise():
    batch = torch.full((300, 3, 16, 16), 7, dtype=torch.uint8)
    got = RandomErasing(0.25)(batch, seeded(3))
    changed = (got != batch).any(1)
    erased = changed.flatten(1).any(1)
    assert 0.15 < erased.float().mean() < 0.35
    for each in changed[erased]:
        rows, columns = each.any(1).nonzero(), each.any(0).nonzero()
        hole = each[int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]
        assert hole.all()  # that three channels of noise are all 7 is as good as impossible
        assert 2 <= hole.numel() <= 0.45 * 256
    assert not (RandomErasing(0.0)(batch, seeded(0)) != batch).any()


@pytest.mark.parametrize("step", [RandAugment(), RandomErasing(0.5)])
def test_a_seed_alone_decides(step):
    batch = images(30)
    before, state = batch.clone(), torch.get_rng_state()
    one, other = step(batch, seeded(4)), step(batch, seeded(4))
    assert torch.equal(one, other) and not torch.equal(one, step(batch, seeded(5)))
    assert torch.equal(batch, before) and torch.equal(torch.get_rng_state(), state)


CONFIG = DataConfig(name="cifar10", augment=True, randaugment=9.0, erase=0.25)


def test_ranks_together_have_the_batches_of_one():
    split = TensorSplit.of(images(20), torch.arange(20), CIFAR10.image_converter(CONFIG))
    whole = [x for x, _ in split.batches(8, 3)]
    parts = [[x for x, _ in split.batches(8, 3, part=(rank, 2))] for rank in range(2)]
    for x, *shared in zip(whole, *parts, strict=True):
        assert torch.equal(x, torch.cat(shared))
    assert not torch.equal(whole[0], next(iter(split.batches(8, 4)))[0])
    plain = next(iter(split.plain().batches(20)))[0]
    assert torch.equal(plain, images(20).float() / 255)


def test_batches_are_made_where_the_samples_lie():
    """On a device that computes shapes alone: whatever mixed it with the CPU, or waited for it, would raise."""
    split = TensorSplit.of(images(20), torch.arange(20), CIFAR10.image_converter(CONFIG))
    x, _ = next(iter(split.to(torch.device("meta"), {}).batches(20, 0)))
    assert x.device.type == "meta" and x.shape == (20, 3, 20, 18)


def test_what_cannot_be_augmented_is_named():
    asked = DataConfig(name="any", erase=0.5)
    with pytest.raises(ValueError, match="brightest byte is 255; that of digits is 16"):
        DIGITS.image_converter(asked)
    with pytest.raises(ValueError, match="nmnist has recordings of events"):
        NMNIST.event_converter(asked)
    with pytest.raises(ValueError, match="erase is for built-in data sets"):
        read_user(asked)
    with pytest.raises(ValueError, match=r"1 or 3 channels; got shape \(4, 2, 20, 18\)"):
        RandAugment()(images(4, 2), seeded(0))


@pytest.mark.parametrize("wrong", [{"randaugment": 11.0}, {"randaugment": -1.0}, {"erase": 1.5}])
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a .*; got"):
        DataConfig(**wrong)
