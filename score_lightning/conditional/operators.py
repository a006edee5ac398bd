"""Observations y = A x_0 + noise and their linear operators A; the adjoint of any by automatic differentiation."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Operator(Protocol):
    """A linear map of images (B, ...), each by itself, to what is seen of them."""

    def forward(self, x: Tensor, /) -> Tensor:
        """A x, of shape (B, ...)."""


def adjoint(operator: Operator, v: Tensor, like: Tensor) -> Tensor:
    """A^T v of `like`'s shape (B, ...), for v of the shape of A `like`: `<A x, v> = <x, A^T v>`.

    It is the product of v with the operator's Jacobian, which automatic differentiation gives.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros_like(like).requires_grad_()
        return torch.autograd.grad(operator.forward(x), x, v.clone())[0]


@dataclass(frozen=True)
class Observation:
    """y = A x_0 + noise z, with standard normal z.

    Args:
        operator: A, anything with a linear `forward` from images (B, ...), each by itself.
        y: (B, ...), one for each image, or (1, ...), one for all.
        noise: standard deviation, in the units of y.

    Raises:
        ValueError: unless the noise is finite and not negative.
    """

    operator: Operator
    y: Tensor
    noise: float

    def __post_init__(self) -> None:
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"the noise of an observation is a standard deviation of 0 or more, got {self.noise}")

    def see(self, x: Tensor) -> Tensor:
        """A x of images (B, ...).

        Raises:
            ValueError: when the observation has another shape, or the operator cannot take images of this one.
        """
        try:
            seen = self.operator.forward(x)
        except RuntimeError as error:
            raise ValueError(f"the operator cannot take images of shape {tuple(x.shape[1:])}: {error}") from error
        if seen.shape[1:] != self.y.shape[1:] or len(seen) != len(x) or len(self.y) not in (1, len(x)):
            raise ValueError(
                f"the operator makes {tuple(seen.shape)} of images {tuple(x.shape)}, the observation has "
                f"{tuple(self.y.shape)}: take the operator that it was made with, and a batch of observations, or of 1"
            )
        return seen


class Mask:
    """The pixels of images (B, C, H, W) where `known`, bool (H, W); 0 elsewhere."""

    def __init__(self, known: Tensor) -> None:
        self._known = known

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        return x * self._known.to(x)


class Gray:
    """The mean of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W)."""
        return x.mean(1, keepdim=True)


class Downsample:
    """The means of squares of factor x factor pixels.

    Raises:
        ValueError: when the factor is below 2.
    """

    def __init__(self, factor: int) -> None:
        if factor < 2:
            raise ValueError(f"downsampling needs a factor of 2 or more, got {factor}")
        self._factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H / factor, W / factor)."""
        return F.avg_pool2d(x, self._factor)


class BicubicDownsample(Downsample):
    """Pictures made smaller by bicubic interpolation with antialiasing in place of means: Keys' kernel, a = -0.5."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H / factor, W / factor)."""
        size = [side // self._factor for side in x.shape[2:]]
        return F.interpolate(x, size, mode="bicubic", antialias=True)


class Blur:
    """Every channel convolved with one kernel; images go on beyond their borders as in a mirror.

    Args:
        kernel: (2 r + 1, 2 r + 1), scaled here to a sum of 1.
    """

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel / kernel.sum()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W).

        Raises:
            ValueError: when the images are not larger than r.
        """
        r, channels = len(self.kernel) // 2, x.shape[1]
        if r >= min(x.shape[2:]):
            raise ValueError(f"a blur that reaches {r} pixels needs larger images, got {x.shape[2]} x {x.shape[3]}")
        weight = self.kernel.to(x).expand(channels, 1, -1, -1)
        return F.conv2d(_mirror(_mirror(x, r, 2), r, 3), weight, groups=channels)


class GaussianBlur(Blur):
    """Blurred by a Gaussian, cut off at three standard deviations.

    Args:
        std: in pixels.

    Raises:
        ValueError: unless std is positive and finite.
    """

    def __init__(self, std: float) -> None:
        if not 0 < std < math.inf:
            raise ValueError(f"a Gaussian blur needs a positive standard deviation in pixels, got {std}")
        reach = math.ceil(3 * std)
        line = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * std**2))
        super().__init__(line[:, None] * line)


class MotionBlur(Blur):
    """The mean along a straight line, of points a pixel apart, each shared out among its four nearest pixels.

    Args:
        length: points on the line.
        angle: of the line to the horizontal, in degrees, counterclockwise.

    Raises:
        ValueError: unless the length is at least 2 and the angle finite.
    """

    def __init__(self, length: int, angle: float) -> None:
        if length < 2 or not math.isfinite(angle):
            raise ValueError(f"motion blur needs a length of at least 2 pixels and an angle, got {length} and {angle}")
        reach = math.ceil((length - 1) / 2)
        steps = torch.arange(length, dtype=torch.float64) - (length - 1) / 2
        pixels = torch.arange(-reach, reach + 1, dtype=torch.float64)
        # rows count downwards; a point's weight at a pixel falls linearly to 0 at a distance of 1
        rows, columns = -math.sin(math.radians(angle)) * steps, math.cos(math.radians(angle)) * steps
        near_rows, near_columns = ((1 - (at[:, None] - pixels).abs()).clamp(min=0) for at in (rows, columns))
        super().__init__(near_rows.mT @ near_columns)


def _mirror(x: Tensor, r: int, dim: int) -> Tensor:
    """x with r more entries at both ends, mirrored about the outermost ones.

    PyTorch's own reflection has a backward pass on GPUs that differs from run to run.
    """
    n = x.shape[dim]
    return torch.cat([x.narrow(dim, 1, r).flip(dim), x, x.narrow(dim, n - 1 - r, r).flip(dim)], dim)
