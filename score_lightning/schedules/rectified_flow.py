"""Rectified flow, the schedule whose last time is noise alone."""

import torch
from torch import Tensor

from score_lightning.perturbation import widest
from score_lightning.schedules.base import Readings
from score_lightning.schedules.continuous import Continuous


class RectifiedFlow(Continuous):
    """Rectified flow: alpha = 1 - t, sigma = t, a straight line from data to noise.

    Lipman et al. 2023, Eq. 20; Liu et al. 2023, Eq. 1; Albergo & Vanden-Eijnden 2023. The probability flow is
    integrated in t itself, dx / dt = eps - x_0, also from t = 1 on, where nothing of the signal is left. Samplers end
    at time 1e-3; Euler's published N steps are ddim with steps=N and end=1/N, the last of them the final denoising.

    Raises:
        ValueError: unless 0 < t_min < 1.
    """

    def __init__(self, t_min: float = 1e-5) -> None:
        super().__init__(t_min)
        self.sampling_end = max(t_min, 1e-3)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - t, t)."""
        t = t.to(widest(t))
        return 1 - t, t

    def log_alpha(self, t: Tensor) -> Tensor:
        """ln(1 - t)."""
        return torch.log1p(-t)

    def sigma(self, t: Tensor) -> Tensor:
        """t."""
        return t

    def inverse(self, ratio: Tensor) -> Tensor:
        """t = n / (1 + n)."""
        return 1 / (1 + 1 / ratio)

    def flow(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1, t)."""
        t = t.to(widest(t))
        return torch.ones_like(t), t

    def flow_time(self, n: Tensor) -> Tensor:
        """n itself."""
        return n.to(widest(n)).clamp(*self._ends)

    def slope(self, estimate: Readings) -> Tensor:
        """eps - x_0."""
        return estimate.velocity
