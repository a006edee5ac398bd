"""The two conversions between gray levels and the model's range."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.data.pixels import PixelRange

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
