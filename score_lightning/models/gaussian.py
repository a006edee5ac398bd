"""The exact model of Gaussian data."""

import math
from functools import partial

import torch
from torch import Tensor

from score_lightning.models.estimate import Estimate, Prediction
from score_lightning.schedules import Schedule


class GaussianModel:
    """The exact estimate for data distributed as N(mean, covariance), under any schedule.

    In the axes of the covariance, where it is diag(lambda), and with y the coordinates of x_t - alpha mean there,

        eps = sigma y / (alpha^2 lambda + sigma^2),    x_0 - mean = alpha lambda y / (alpha^2 lambda + sigma^2)

    Args:
        mean: (D,).
        covariance: (D, D), symmetric and positive semidefinite; or (D,), the diagonal of one that is diagonal.
        schedule: the noise levels.

    Raises:
        ValueError: when the shapes do not fit, or the covariance is not symmetric or has a negative eigenvalue.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: Schedule) -> None:
        if mean.ndim != 1 or covariance.shape not in (mean.shape, 2 * mean.shape):
            raise ValueError(
                f"mean must be (D,) and covariance (D, D) or (D,), got {tuple(mean.shape)}, {tuple(covariance.shape)}"
            )
        self.mean, self.covariance, self.schedule = mean, covariance, schedule
        self._axes: Tensor | None = None
        self._variances = covariance
        if covariance.ndim == 2:
            if not torch.allclose(covariance, covariance.mT):
                raise ValueError("the covariance must be symmetric")
            self._variances, self._axes = torch.linalg.eigh(covariance)
        scale = float(self._variances.abs().max())
        if not self._variances.min() >= -1e-6 * scale:
            raise ValueError(f"the covariance has a negative eigenvalue, {float(self._variances.min()):.3g}")
        self._variances = self._variances.clamp(min=0)
        self._prediction = Prediction(eps=partial(_eps, self), x_0=partial(_x_0, self))

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate for x_t of shape (B, D) at times t of shape () or (B,)."""
        alpha, sigma = self._kernel(x_t, t)
        return Estimate(x_t, alpha, sigma, self._coordinates(x_t - alpha * self.mean.to(x_t)), self._prediction)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """ln p(x_t) in nats, of shape (B,)."""
        alpha, sigma = self._kernel(x_t, t)
        variances = self.variances_at(x_t, alpha, sigma)
        squares = self._coordinates(x_t - alpha * self.mean.to(x_t)).square() / variances
        return -(squares + torch.log(2 * math.pi * variances)).sum(1) / 2

    def draw(self, n: int) -> Tensor:
        """n exact data points (n, D)."""
        return self.mean + self._turned(self._variances.sqrt() * torch.randn(n, len(self.mean), dtype=self.mean.dtype))

    def variances_at(self, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Those of x_t along the axes of the covariance, (1, D) or (B, D), for alpha and sigma of (1, 1) or (B, 1)."""
        return alpha**2 * self._variances.to(x_t) + sigma**2

    def _kernel(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = (a.to(x_t).view(-1, 1) for a in self.schedule(t))
        return alpha, sigma

    def _coordinates(self, x: Tensor) -> Tensor:
        return x if self._axes is None else x @ self._axes.to(x)

    def _turned(self, y: Tensor) -> Tensor:
        return y if self._axes is None else y @ self._axes.to(y).mT


def _eps(model: GaussianModel, y: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return model._turned(sigma * y / model.variances_at(x_t, alpha, sigma))


def _x_0(model: GaussianModel, y: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    share = alpha * model._variances.to(x_t) / model.variances_at(x_t, alpha, sigma)
    return model.mean.to(x_t) + model._turned(share * y)
