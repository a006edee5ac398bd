"""What discrete and continuous schedules share: the kernel's type, and how times are spaced."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

MOST = 1_000_000  # levels or steps, which networks in float32 could not tell apart
Spacing = Literal["uniform", "quadratic", "log_snr", "karras", "leading", "trailing"]
RandnLike = Callable[[Tensor], Tensor]
Kernel = Callable[[Tensor], tuple[Tensor, Tensor]]


def shares(steps: int) -> Tensor:
    """(steps,) float64 numbers from 1 down to 0, evenly spaced; 1 alone of one.

    Raises:
        ValueError: unless steps is a whole number of at least 1 and at most `MOST`.
    """
    if int(steps) != steps or not 1 <= steps <= MOST:
        raise ValueError(f"steps must be a whole number of at least 1, and at most {MOST:,}, got {steps}")
    return torch.linspace(1, 0, steps, dtype=torch.float64)


def ratios(schedule: Kernel, t_min: Tensor, t_max: Tensor, share: Tensor, spacing: Spacing) -> Tensor:
    """Values of sigma / alpha between those at t_min and t_max, for a spacing of log_snr or karras."""
    (alpha_min, sigma_min), (alpha_max, sigma_max) = schedule(t_min), schedule(t_max)
    low, high = sigma_min / alpha_min, sigma_max / alpha_max
    if spacing == "log_snr":
        return (low.log() + share * (high.log() - low.log())).exp()
    return (low ** (1 / 7) + share * (high ** (1 / 7) - low ** (1 / 7))) ** 7
