"""Pixels as features: of any images, without weights or labels."""

import hashlib

from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.evaluation.features.base import Features

SIDE = 8  # pixels


class Pixels(nn.Module):
    """Rows of pixels, from 0 to 1, of images that are averaged to 8 x 8 pixels where they have more."""

    def __init__(self, depth: Depth) -> None:
        super().__init__()
        self._depth = depth

    def forward(self, images: Tensor) -> Tensor:
        """(B, C * h * w) of stored images (B, C, H, W), with h and w of at most 8."""
        x = (images.float() - self._depth.black) / (self._depth.white - self._depth.black)
        return F.adaptive_avg_pool2d(x, (min(SIDE, x.shape[2]), min(SIDE, x.shape[3]))).flatten(1)


def pixels(depth: Depth = EIGHT_BITS) -> Features:
    """The pixels themselves, from 0 to 1, averaged to 8 x 8 of them where there are more; for any images.

    Args:
        depth: of the images.
    """
    sha256 = hashlib.sha256(f"{SIDE} {depth}".encode()).hexdigest()
    return Features("pixels", Pixels(depth), sha256, resize=f"averaged to {SIDE} x {SIDE} pixels where larger")
