"""The conversions between data and models: images (uint8) in the model's range, points as they are."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelRange:
    """The range of pixels inside the model: [-1, 1], or [0, 1] for the recipes of NCSN."""

    low: float = -1.0
    high: float = 1.0
    dtype = torch.uint8

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the range of pixels must be [low, high] with low < high, got [{self.low}, {self.high}]")

    def encode(self, images: Tensor, dequantize: Tensor | None = None) -> Tensor:
        """float32 images in [low, high] from uint8 images of the same shape.

        Args:
            images: uint8, of any shape.
            dequantize: uniform numbers u on [0, 1) of the same shape; then x = (255 x + u) / 256 in [0, 1) first, as
                NCSN's code does.
        """
        x = images.to(torch.float32, copy=True)  # then in place
        x = x.div_(255) if dequantize is None else x.add_(dequantize).div_(256)
        return x.mul_(self.high - self.low).add_(self.low)

    def decode(self, x: Tensor) -> Tensor:
        """uint8 images, clamped and rounded to the nearest gray level, from x in [low, high]; black where x is NaN."""
        levels = (x.float() - self.low) * (255 / (self.high - self.low))
        return levels.clamp(0, 255).round().nan_to_num(0).to(torch.uint8)


@dataclass(frozen=True)
class Coordinates:
    """In place of a pixel range for points, which have no range and need no conversion."""

    low: float = -math.inf
    high: float = math.inf
    dtype = torch.float32

    def encode(self, points: Tensor, dequantize: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The points unchanged."""
        return points

    def decode(self, x: Tensor) -> Tensor:
        """The points in float32."""
        return x.float()


Range = PixelRange | Coordinates
