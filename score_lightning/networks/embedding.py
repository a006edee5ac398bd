"""Embeddings of a scalar conditioning."""

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, width: int, endpoint: bool = True) -> Tensor:
    """(B, width) sines, then cosines, of t (B,) at frequencies from 1 down to 1/10,000 (Vaswani et al. 2017, Sec. 3.5).

    With `endpoint` the frequencies run to the end of the geometric range inclusive, as in DDPM's code; without, they
    stop one step before, as in Nichol & Dhariwal's. An odd width ends in a zero.
    """
    half = width // 2
    steps = max(half - endpoint, 1)
    frequencies = torch.exp(-math.log(10_000) / steps * torch.arange(half, device=t.device))
    angles = t.to(frequencies.dtype)[:, None] * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))


class Fourier(nn.Module):
    """Random Fourier features: sines, then cosines, of 2 pi w c with fixed w ~ N(0, scale^2) (Tancik et al. 2020).

    Args:
        width: numbers in an embedding, even.
        scale: standard deviation of the frequencies; 16 in NCSN++ (Song et al. 2021a, App. H.1).
        counted: whether the frequencies are parameters, if frozen ones, as the score SDEs count them; else a buffer.
    """

    frequencies: Tensor

    def __init__(self, width: int, scale: float = 16.0, counted: bool = True) -> None:
        super().__init__()
        frequencies = scale * torch.randn(width // 2)
        if counted:
            self.frequencies = nn.Parameter(frequencies, requires_grad=False)
        else:
            self.register_buffer("frequencies", frequencies)

    def forward(self, c: Tensor) -> Tensor:
        """(B, width) from c (B,)."""
        # angles are too large for half precision
        dtype = torch.promote_types(self.frequencies.dtype, torch.float32)
        angles = 2 * math.pi * c.to(dtype)[:, None] * self.frequencies.to(dtype)
        return torch.cat([angles.sin(), angles.cos()], 1)
