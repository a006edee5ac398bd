"""Embeddings of a scalar conditioning."""

import math

import torch
from torch import Tensor


def sinusoidal(t: Tensor, width: int) -> Tensor:
    """(B, width) sines, then cosines, of t (B,) at frequencies from 1 down to 1/10,000 (Vaswani et al. 2017, Sec. 3.5).

    The frequencies run to the end of the geometric range inclusive, as in DDPM's code; an odd width ends in a zero.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10_000) / max(half - 1, 1) * torch.arange(half, device=t.device))
    angles = t.to(frequencies.dtype)[:, None] * frequencies
    return torch.nn.functional.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width % 2))
