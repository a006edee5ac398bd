"""Embeddings of a scalar conditioning."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, width: int, endpoint: bool = True) -> Tensor:
    """(B, width) sines, then cosines, of t (B,) at frequencies from 1 down to 1/10,000 (Vaswani et al. 2017, Sec. 3.5).

    In float32, whatever the default type: angles are too large for half precision.

    With `endpoint` the frequencies run to the end of the geometric range inclusive, as in DDPM's code; without, they
    stop one step before, as in Nichol & Dhariwal's. An odd width ends in a zero.
    """
    half = width // 2
    steps = max(half - endpoint, 1)
    frequencies = torch.exp(-math.log(10_000) / steps * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = t.to(frequencies.dtype)[:, None] * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))


def look_up(table: nn.Embedding, labels: Tensor | None, c: Tensor) -> Tensor:
    """(B, width), the rows of labels int64 (B,), -1 or None for no label, beside the conditioning c (B,)."""
    return table(c.new_zeros(c.shape, dtype=torch.int64) if labels is None else labels + 1)


class Fourier(nn.Module):
    """Random Fourier features: sines, then cosines, of 2 pi w c with fixed w ~ N(0, scale^2) (Tancik et al. 2020).

    Frequencies and angles are float32 also in a network whose weights are of half precision.

    Args:
        width: numbers in an embedding, even.
        scale: standard deviation of the frequencies; 16 in NCSN++ (Song et al. 2021a, App. H.1).
        counted: whether the frequencies are parameters, if frozen ones, as the score SDEs count them; else a buffer.
    """

    frequencies: Tensor

    def __init__(self, width: int, scale: float = 16.0, counted: bool = True) -> None:
        super().__init__()
        frequencies = scale * torch.randn(width // 2, dtype=torch.float32)
        if counted:
            self.frequencies = nn.Parameter(frequencies, requires_grad=False)
        else:
            self.register_buffer("frequencies", frequencies)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Fourier":
        before = self.frequencies.detach()
        super()._apply(fn, recurse)
        if self.frequencies.dtype != before.dtype:  # moves it, and leaves its type
            self.frequencies.data = before.to(self.frequencies.device)
        return self

    def forward(self, c: Tensor) -> Tensor:
        """(B, width) from c (B,)."""
        angles = 2 * math.pi * c.to(self.frequencies.dtype)[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)
