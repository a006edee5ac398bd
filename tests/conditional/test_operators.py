"""Linear operators against their definitions, and their adjoints."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from score_lightning.conditional import Downsample, GaussianBlur, Gray, Mask, MotionBlur, adjoint

KNOWN = torch.arange(48).view(6, 8) % 3 > 0


class Matrix:
    """One from Python, of another shape than its images."""

    def forward(self, x):
        return x.flatten(1) @ torch.linspace(-1, 1, 144 * 5, dtype=x.dtype).sin().view(144, 5)


OPERATORS = [Mask(KNOWN), Gray(), Downsample(2), GaussianBlur(0.8), MotionBlur(3, 30.0), Matrix()]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)
@pytest.mark.parametrize("inference", [False, True])
def test_the_adjoint_moves_an_operator_to_the_other_side_of_a_product(operator, inference):
    with torch.inference_mode(inference):
        x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
        seen = operator.forward(x)
        v = torch.randn_like(seen)
        assert_close((seen * v).sum(), (x * adjoint(operator, v, x)).sum())
        assert_close(operator.forward(3 * x + x.flip(0)), 3 * seen + seen.flip(0))


def test_masks_means_and_squares_are_what_they_say():
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    assert torch.equal(Mask(KNOWN).forward(x)[..., KNOWN], x[..., KNOWN])
    assert not Mask(KNOWN).forward(x)[..., ~KNOWN].any()
    assert_close(Gray().forward(x), (x[:, :1] + x[:, 1:2] + x[:, 2:]) / 3)
    squares = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    assert_close(Downsample(2).forward(x), squares)


def test_blurs_continue_images_as_torch_mirrors_them_and_keep_their_level():
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    for blur in (GaussianBlur(0.8), MotionBlur(4, 70.0)):
        r = len(blur.kernel) // 2
        kernel = blur.kernel.expand(3, 1, -1, -1)
        assert_close(blur.forward(x), F.conv2d(F.pad(x, (r, r, r, r), "reflect"), kernel, groups=3))
        assert_close(blur.forward(torch.ones_like(x)), torch.ones_like(x))


def test_a_gaussian_blur_has_its_variance():
    kernel = GaussianBlur(1.5).kernel
    at = torch.arange(-5.0, 6.0, dtype=torch.float64)
    assert kernel.shape == (11, 11)
    assert (kernel.sum(0) * at**2).sum().item() == pytest.approx(1.5**2, rel=0.02)
    assert (kernel[6, 5] / kernel[5, 5]).item() == pytest.approx(math.exp(-1 / (2 * 1.5**2)))


def test_a_moving_camera_leaves_a_line_of_its_length_at_its_angle():
    third = torch.tensor([0.0, 1.0, 0.0]).double()[:, None].expand(3, 3) / 3
    assert_close(MotionBlur(3, 0.0).kernel, third)
    assert_close(MotionBlur(3, 90.0).kernel, third.mT, rtol=0, atol=1e-15)
    kernel = MotionBlur(9, 30.0).kernel
    rows, columns = torch.meshgrid(*2 * [torch.arange(-4.0, 5.0).double()], indexing="ij")
    up_right, across = (kernel * -rows * columns).sum(), (kernel * columns**2).sum()
    assert (up_right / across).item() == pytest.approx(math.tan(math.radians(30)), abs=0.04)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="factor of 2 or more, got 1"):
        Downsample(1)
    with pytest.raises(ValueError, match="positive standard deviation in pixels, got 0"):
        GaussianBlur(0)
    with pytest.raises(ValueError, match="at least 2 pixels and an angle, got 1 and 0"):
        MotionBlur(1, 0)
    with pytest.raises(ValueError, match="reaches 6 pixels needs larger images, got 6 x 8"):
        GaussianBlur(2).forward(torch.zeros(1, 3, 6, 8))
