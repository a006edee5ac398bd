"""The conversions between data and models: images as they are stored in the model's range, points as they are."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Depth:
    """How the pixels of images are stored: integers of 8 or 16 bits, or floats.

    Args:
        dtype: uint8, uint16 or float32.
        black, white: the stored values of the ends of the range, both whole numbers where pixels are integers.

    Raises:
        ValueError: when black is not below white, or integers of these bits do not hold them.
    """

    dtype: torch.dtype = torch.uint8
    black: float = 0.0
    white: float = 255.0

    def __post_init__(self) -> None:
        ends = f"[{self.black:g}, {self.white:g}]"
        if not self.black < self.white:
            raise ValueError(f"the stored range must be [black, white] with black < white, got {ends}")
        if self.dtype.is_floating_point:
            return
        integers = all(float(end).is_integer() for end in (self.black, self.white))
        if not integers or self.black < 0 or self.white > _LARGEST[self.dtype]:
            raise ValueError(
                f"pixels of {self.bits} bits are whole numbers from 0 to {_LARGEST[self.dtype]}, got {ends}"
            )

    @property
    def bits(self) -> int:
        """Of a pixel."""
        return self.dtype.itemsize * 8

    @property
    def levels(self) -> int | None:
        """Number of gray levels; None of floats."""
        return None if self.dtype.is_floating_point else int(self.white - self.black) + 1

    @property
    def whole(self) -> bool:
        """Whether the range is that of all integers of these bits, as picture files have it."""
        return not self.dtype.is_floating_point and (self.black, self.white) == (0, _LARGEST[self.dtype])

    def __str__(self) -> str:
        kind = "floats" if self.dtype.is_floating_point else f"{self.bits} bits"
        return kind if self.whole else f"{kind} from {self.black:g} to {self.white:g}"


def array_dtype(dtype: torch.dtype) -> "np.dtype[Any]":
    """NumPy's name for a type."""
    return np.dtype(str(dtype).removeprefix("torch."))


_LARGEST = {torch.uint8: 255, torch.uint16: 65535}
EIGHT_BITS = Depth()
"""That of most pictures."""


def whole_depth(dtype: torch.dtype) -> Depth:
    """That of all integers of a type, uint8 or uint16."""
    return Depth(dtype, 0, _LARGEST[dtype])


@dataclass(frozen=True)
class PixelRange:
    """The range of pixels inside the model: [-1, 1], or [0, 1] for the recipes of NCSN.

    Args:
        low, high: the range.
        dequantized: whether gray level g of L (256 for 8 bits) is the interval [g / L, (g + 1) / L) of the range,
            rather than the point g / (L - 1).
        depth: how pixels are stored outside the model.

    Raises:
        ValueError: when the range is empty, or floats are to be dequantized.
    """

    low: float = -1.0
    high: float = 1.0
    dequantized: bool = False
    depth: Depth = EIGHT_BITS

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the range of pixels must be [low, high] with low < high, got [{self.low}, {self.high}]")
        if self.dequantized and self.depth.levels is None:
            raise ValueError("floats have no gray levels to dequantize: set images.dequantize=false")

    @property
    def dtype(self) -> torch.dtype:
        """Of stored images."""
        return self.depth.dtype

    @property
    def levels(self) -> int | None:
        """Number of gray levels; None of floats."""
        return self.depth.levels

    def encode(self, images: Tensor, dequantize: Tensor | None = None) -> Tensor:
        """float32 images in [low, high] from stored images of the same shape.

        Args:
            images: of any shape.
            dequantize: uniform numbers u on [0, 1) of the same shape; then x = (g + u) / L for level g of L, in [0, 1)
                first, as NCSN's code does.
        """
        x = images.to(torch.float32, copy=True)  # then in place
        if self.depth.black != 0:
            x.sub_(self.depth.black)
        span = self.depth.white - self.depth.black
        x = x.div_(span) if dequantize is None else x.add_(self._inside(dequantize)).div_(span + 1)
        return x.mul_(self.high - self.low).add_(self.low)

    def decode(self, x: Tensor) -> Tensor:
        """Images as they are stored from x in [low, high], clamped; black where x is NaN: the inverse of `encode`.

        Each pixel is the gray level in whose interval it lies, or the nearest one where levels are points.
        """
        share = (x.float() - self.low) / (self.high - self.low)
        black, span = self.depth.black, self.depth.white - self.depth.black
        if self.levels is None:
            return share.clamp(0, 1).nan_to_num(0).mul(span).add(black).to(self.dtype)
        levels = (share * (span + 1)).floor() if self.dequantized else (share * span).round()
        return (levels.clamp(0, span).nan_to_num(0) + black).to(self.dtype)

    def _inside(self, u: Tensor) -> Tensor:
        """u kept away from the ends of its interval, across which float32 would round it."""
        assert self.levels is not None
        digits = torch.finfo(torch.float32).eps * max(abs(self.low), abs(self.high)) / (self.high - self.low)
        margin = min(max(2**-14, 2 * self.levels * digits), 0.5)
        return u.clamp(margin, 1 - margin)

    @property
    def quantizer(self) -> str:
        """What `decode` does, in words."""
        if self.levels is None:
            return "clamp to the range of pixels"
        levels = "the level in whose interval it lies" if self.dequantized else "round to the nearest"
        return f"clamp to the range of pixels, {levels} of {self.levels:,} levels"


@dataclass(frozen=True)
class Coordinates:
    """In place of a pixel range for points, which have no range and need no conversion."""

    low: float = -math.inf
    high: float = math.inf
    dequantized = False
    dtype = torch.float32
    depth = EIGHT_BITS  # of pictures of points: they have no pixels themselves
    levels = None
    quantizer = "none: points"

    def encode(self, points: Tensor, dequantize: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The points unchanged."""
        return points

    def decode(self, x: Tensor) -> Tensor:
        """The points in float32."""
        return x.float()


Range = PixelRange | Coordinates
