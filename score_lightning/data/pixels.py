"""The conversions between data and models: images (uint8) in the model's range, points as they are."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelRange:
    """The range of pixels inside the model: [-1, 1], or [0, 1] for the recipes of NCSN.

    Args:
        low, high: the range.
        dequantized: whether a gray level g is the interval [g / 256, (g + 1) / 256) of the range, rather than the point
            g / 255.
    """

    low: float = -1.0
    high: float = 1.0
    dequantized: bool = False
    dtype = torch.uint8

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the range of pixels must be [low, high] with low < high, got [{self.low}, {self.high}]")

    def encode(self, images: Tensor, dequantize: Tensor | None = None) -> Tensor:
        """float32 images in [low, high] from uint8 images of the same shape.

        Args:
            images: uint8, of any shape.
            dequantize: uniform numbers u on [0, 1) of the same shape; then x = (g + u) / 256 for level g, in [0, 1)
                first, as NCSN's code does.
        """
        x = images.to(torch.float32, copy=True)  # then in place
        x = x.div_(255) if dequantize is None else x.add_(self._inside(dequantize)).div_(256)
        return x.mul_(self.high - self.low).add_(self.low)

    def decode(self, x: Tensor) -> Tensor:
        """uint8 images from x in [low, high], clamped; black where x is NaN: the inverse of `encode`.

        Each pixel is the gray level in whose interval it lies, or the nearest one where levels are points.
        """
        share = (x.float() - self.low) / (self.high - self.low)
        levels = (share * 256).floor() if self.dequantized else (share * 255).round()
        return levels.clamp(0, 255).nan_to_num(0).to(torch.uint8)

    def _inside(self, u: Tensor) -> Tensor:
        """u kept away from the ends of its interval, across which float32 would round it."""
        digits = torch.finfo(torch.float32).eps * max(abs(self.low), abs(self.high)) / (self.high - self.low)
        margin = max(2**-14, 512 * digits)
        return u.clamp(margin, 1 - margin)

    @property
    def quantizer(self) -> str:
        """What `decode` does, in words."""
        levels = "the level in whose interval it lies" if self.dequantized else "round to the nearest"
        return f"clamp to the range of pixels, {levels} of 256 levels"


@dataclass(frozen=True)
class Coordinates:
    """In place of a pixel range for points, which have no range and need no conversion."""

    low: float = -math.inf
    high: float = math.inf
    dequantized = False
    dtype = torch.float32
    quantizer = "none: points"

    def encode(self, points: Tensor, dequantize: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The points unchanged."""
        return points

    def decode(self, x: Tensor) -> Tensor:
        """The points in float32."""
        return x.float()


Range = PixelRange | Coordinates
