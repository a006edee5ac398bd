"""Predictors: one step from x_t to x_s, s < t, for any Gaussian kernel.

Both draw from p(x_s | x_t, x_0) with x_0 replaced by the model's estimate; they differ in the variance.
"""

from typing import Literal

import torch
from torch import Tensor

from score_lightning.models import Estimate
from score_lightning.perturbation import posterior, transition
from score_lightning.schedules import Discrete, RandnLike


class Ancestral:
    """DDPM's sampler (Ho et al. 2020, Algorithm 2); with the small variance also NCSN's (Song et al. 2021, App. F).

    The mean is the posterior's, with the estimated x_0 (Eq. 7). The fixed variance is sigma_ts^2 = beta_t (`large`,
    best for x_0 ~ N(0, I)) or the posterior's beta~_t (`small`, best for a single x_0).

    Raises:
        ValueError: for another variance.
    """

    def __init__(self, variance: Literal["large", "small"] = "large") -> None:
        if variance not in ("large", "small"):
            raise ValueError(f"variance must be large or small, got {variance!r}")
        self.variance = variance

    def step(self, estimate: Estimate, schedule: Discrete, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape, from the estimate at t."""
        kernels = (*schedule(s), *schedule(t))
        a, b, variance = posterior(*kernels)
        if self.variance == "large":
            variance = transition(*kernels)[1]
        return a * estimate.x_t + b * estimate.x_0 + variance.sqrt() * randn_like(estimate.x_t)


class DDIM:
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z (Song et al. 2021, DDIM, Eq. 12).

    d^2 = eta^2 times the posterior's variance (Eq. 16): eta = 0 is deterministic, eta = 1 is Ancestral("small").

    Raises:
        ValueError: unless 0 <= eta <= 1.
    """

    def __init__(self, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {eta}")
        self.eta = eta

    def step(self, estimate: Estimate, schedule: Discrete, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape, from the estimate at t."""
        alpha_s, sigma_s = schedule(s)
        variance = self.eta**2 * posterior(alpha_s, sigma_s, *schedule(t))[2]
        x_s = alpha_s * estimate.x_0 + torch.sqrt(sigma_s**2 - variance) * estimate.eps
        return x_s + variance.sqrt() * randn_like(x_s) if self.eta > 0 else x_s
