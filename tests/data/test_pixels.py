"""The two conversions between gray levels and the model's range."""

import math

import pytest
import torch
from torch.testing import assert_close

from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import Depth, PixelRange

GRAY = torch.arange(256, dtype=torch.uint8)


@pytest.mark.parametrize("pixels", [PixelRange(), PixelRange(0.0, 1.0)])
def test_every_grey_level_survives_the_round_trip(pixels):
    x = pixels.encode(GRAY)
    assert (x[0], x[-1]) == (pixels.low, pixels.high)
    assert torch.equal(pixels.decode(x), GRAY)


def test_values_outside_are_clamped_and_others_rounded_to_the_nearest():
    assert PixelRange(0.0, 1.0).decode(torch.tensor([-0.01, 1.01, 0.499 / 255, 0.501 / 255])).tolist() == [0, 255, 0, 1]


def test_dequantization_equals_ncsn():
    u = torch.rand(256)
    assert_close(PixelRange(0.0, 1.0).encode(GRAY, u), GRAY / 255 * 255 / 256 + u / 256)


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0), (-0.3, 1.7), (-5.0, 100.0), (100.0, 101.0)])
@pytest.mark.parametrize("u", [0.0, 1e-7, 0.25, 0.5, 0.99, 1 - 2**-24])
def test_every_level_survives_dequantization(bounds, u):
    pixels = PixelRange(*bounds, dequantized=True)
    assert torch.equal(pixels.decode(pixels.encode(GRAY, torch.full((256,), u))), GRAY)
    assert torch.equal(pixels.decode(pixels.encode(GRAY)), GRAY)  # a picture that is not
    many = GRAY.repeat(1000)
    assert torch.equal(pixels.decode(pixels.encode(many, torch.rand(len(many)))), many)


def test_an_empty_range_is_refused():
    with pytest.raises(ValueError, match="low < high"):
        PixelRange(1.0, 1.0)


DEPTHS = [Depth(torch.uint16, 0, 65535), Depth(torch.uint16, 100, 4195), Depth(torch.uint8, 0, 1)]


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 1.0)])
def test_levels_of_any_depth_survive_with_noise_and_without(depth, bounds):
    levels = torch.arange(int(depth.black), int(depth.white) + 1).to(depth.dtype)
    x = PixelRange(*bounds, depth=depth).encode(levels)
    assert (x[0], x[-1]) == bounds
    assert torch.equal(PixelRange(*bounds, depth=depth).decode(x), levels)
    pixels = PixelRange(*bounds, dequantized=True, depth=depth)
    for u in (torch.rand(len(levels)), torch.zeros(len(levels)), torch.full((len(levels),), 1 - 2**-24)):
        assert torch.equal(pixels.decode(pixels.encode(levels, u)), levels)
    assert pixels.levels == len(levels)


def test_floats_survive_within_their_range_and_are_clamped_outside_of_it():
    pixels = PixelRange(depth=Depth(torch.float32, -20.0, 60.0))
    stored = torch.linspace(-20, 60, 101)
    assert_close(pixels.decode(pixels.encode(stored)), stored, atol=1e-5, rtol=0)
    assert pixels.decode(torch.tensor([-3.0, 3.0, math.nan])).tolist() == [-20, 60, -20]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Depth(torch.uint16, 5, 5), "black < white"),
        (lambda: Depth(torch.uint8, 0, 256), "whole numbers from 0 to 255"),
        (lambda: Depth(torch.uint16, 0.5, 7), "whole numbers"),
        (lambda: PixelRange(dequantized=True, depth=Depth(torch.float32, 0, 1)), "floats have no gray levels"),
    ],
)
def test_depths_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_images_of_another_type_than_their_depth_are_refused():
    with pytest.raises(ValueError, match=r"images of type torch.uint16 need a depth of that type, got 8 bits"):
        ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint16))
