"""EDM's geometric augmentation, on which the network is conditioned (Karras et al. 2022, App. F.2).

An image is flipped, scaled, rotated, stretched in a random direction and shifted, each independently at random, with
reflection at its borders. Nine numbers, all 0 for an unchanged image, describe the augmentation; the network gets them
beside the noise level, so that augmentations do not leak into the samples.

Images are resampled at twice the resolution, by the low-pass filter of an orthonormal wavelet there and back
(StyleGAN2-ADA: Karras et al. 2020b, App. B): a map that moves whole pixels changes none of them.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from score_lightning.runtime.randomness import BatchNoise

PARAMETERS = 9
"""How many numbers describe an augmentation: flips, scale, rotation (2), anisotropy (2), translation (2)."""

SPREAD = 0.2  # standard deviation of the scales' log2
SHIFT = 0.125  # standard deviation of the translation, in image widths

OFF_CENTER = 0.5  # of a pixel in the resampled image, in EDM's code; the mean place of the filter's taps is 0.40

# low-pass filter of the symlet with 6 vanishing moments (Daubechies 1992, Table 6.3), its sum the square root of 2
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
    0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
    0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip


def augment(x: Tensor, noise: BatchNoise, probability: float) -> tuple[Tensor, Tensor]:
    """Augmented images, and the parameters of their augmentations.

    Args:
        x: images (B, C, H, W), squares.
        noise: of the batch.
        probability: of each transformation except the horizontal flip, whose probability is always 1/2.

    Returns:
        (B, C, H, W), and (B, 9).
    """
    n = len(x)
    u, z = noise.rand(n, 9).to(x), noise.randn_like(x.new_empty(n, 4))
    happens = (u[:, :5] < probability).to(x)
    flip = torch.stack([(u[:, 5] < 0.5).to(x), happens[:, 0] * (u[:, 6] < 0.5)], 1)
    scale, squeeze, shift = z[:, 0] * happens[:, 1], z[:, 1] * happens[:, 3], z[:, 2:] * happens[:, 4:]
    angle = (2 * u[:, 7] - 1) * math.pi * happens[:, 2]
    # half of the anisotropies are along the axes
    direction = (4 * u[:, 8] - 1) * math.pi * (u[:, 8] < 0.5)
    parameters = [flip, _pair(scale, angle.cos() - 1), _pair(angle.sin(), squeeze * direction.cos())]
    parameters += [(squeeze * direction.sin())[:, None], shift]
    flipped = torch.where(flip[:, 0, None, None, None] > 0, x.flip(3), x)
    flipped = torch.where(flip[:, 1, None, None, None] > 0, flipped.flip(2), flipped)
    back = inverse_map(scale, angle, squeeze, direction)
    return resample(flipped, back, shift * SHIFT * x.shape[3]), torch.cat(parameters, 1)


def inverse_map(scale: Tensor, angle: Tensor, squeeze: Tensor, direction: Tensor) -> Tensor:
    """(B, 2, 2) maps from where a pixel of the result lies to where it comes from; all arguments (B,), standardized."""
    isotropic, stretch = (SPREAD * scale).exp2(), (SPREAD * squeeze).exp2()
    squeezed = torch.stack([1 / stretch, stretch], 1)[:, :, None] * _rotation(direction)
    return _rotation(angle) @ _rotation(-direction) @ squeezed / isotropic[:, None, None]


def resample(x: Tensor, back: Tensor, shift: Tensor) -> Tensor:
    """Images whose pixel at p, from the center, is that of x at back (p - shift); reflected where x ends.

    Args:
        x: (B, C, H, W), squares.
        back: (B, 2, 2).
        shift: (B, 2), in pixels, along the width first.
    """
    margin, side = x.shape[3] - 1, x.shape[3]
    large = _double(F.pad(x, (margin, margin, margin, margin), mode="reflect"))
    size = 2 * side + len(SYM6) - 2
    offset = OFF_CENTER * (back.sum(2, keepdim=True) - 1) - 2 * (back @ shift[:, :, None])
    # from and to coordinates in units of half the images' sides
    theta = torch.cat([back * size / large.shape[3], offset * 2 / large.shape[3]], 2)
    grid = F.affine_grid(theta, [len(x), x.shape[1], size, size], align_corners=False)
    return _halve(F.grid_sample(large, grid, mode="bilinear", padding_mode="zeros", align_corners=False))


@cache
def _taps(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The filter, copied to a device once."""
    with torch.inference_mode(False):
        return torch.tensor(SYM6, device=device, dtype=dtype)


def _double(x: Tensor) -> Tensor:
    """Twice the resolution, and a border of the filter's length less 2."""
    taps, rows = _taps(x.device, x.dtype), x.flatten(0, 1)[:, None]
    rows = F.conv_transpose2d(rows, taps.view(1, 1, 1, -1), stride=(1, 2))
    return F.conv_transpose2d(rows, taps.view(1, 1, -1, 1), stride=(2, 1)).unflatten(0, x.shape[:2])[:, :, 0]


def _halve(x: Tensor) -> Tensor:
    """The transpose of `_double`, and its inverse from the left."""
    taps, rows = _taps(x.device, x.dtype), x.flatten(0, 1)[:, None]
    rows = F.conv2d(rows, taps.view(1, 1, 1, -1), stride=(1, 2))
    return F.conv2d(rows, taps.view(1, 1, -1, 1), stride=(2, 1)).unflatten(0, x.shape[:2])[:, :, 0]


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([_pair(cos, -sin), _pair(sin, cos)], 1)


def _pair(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], 1)
