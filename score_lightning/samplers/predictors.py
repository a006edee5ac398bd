"""Predictors: one step from x_t to x_s, s < t, from one estimate at t.

All of them work for any Gaussian kernel; Euler-Maruyama alone asks for the SDE's coefficients.
"""

from typing import get_args

import torch
from torch import Tensor

from score_lightning.models import Estimate, Model
from score_lightning.perturbation import Variance, between, posterior, transition
from score_lightning.samplers.step import Step
from score_lightning.schedules import PURE_NOISE, RandnLike, Schedule


class OneEstimate(Step):
    """A predictor that needs the estimate at t and nothing else."""

    evaluations = 1

    def check(self, schedule: Schedule) -> None:
        """Makes sense with every schedule."""

    def start(self, times: Tensor) -> "OneEstimate":  # noqa: ARG002
        """Its step: itself, since it has no memory."""
        return self

    def __call__(self, model: Model, x: Tensor, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape."""
        return self.step(model(x, t), model.schedule, t, s, randn_like)

    def step(self, estimate: Estimate, schedule: Schedule, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape, from the estimate at t."""
        raise NotImplementedError


class Ancestral(OneEstimate):
    """DDPM's sampler (Ho et al. 2020, Algorithm 2); with the small variance also NCSN's (Song et al. 2021a, App. F).

    The mean is the posterior's, with the estimated x_0 (Eq. 7). The fixed variance is sigma_ts^2 = beta_t (`large`,
    best for x_0 ~ N(0, I)), the posterior's beta~_t (`small`, best for a single x_0), or what the network has `learned`
    between them (Nichol & Dhariwal 2021, Eq. 15).

    Raises:
        ValueError: for another variance.
    """

    def __init__(self, variance: Variance = "large") -> None:
        if variance not in get_args(Variance):
            raise ValueError(f"variance must be one of {', '.join(get_args(Variance))}, got {variance!r}")
        self.variance = variance

    def step(self, estimate: Estimate, schedule: Schedule, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape, from the estimate at t."""
        kernels = (*schedule(s), *schedule(t))
        a, b, variance = posterior(*kernels)
        if self.variance != "small":
            large = transition(*kernels)[1]
            variance = large if self.variance == "large" else between(variance, large, estimate.fraction)
        return a * estimate.x_t + b * estimate.x_0 + variance.sqrt() * randn_like(estimate.x_t)


class DDIM(OneEstimate):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - d^2) eps + d z (Song et al. 2021b, Eq. 12).

    d^2 = eta^2 times the posterior's variance (Eq. 16): eta = 1 is Ancestral("small"), and eta = 0 is deterministic,
    Euler's method for the probability-flow ODE d(x / alpha) / d(sigma / alpha) = eps (Eq. 14).

    Raises:
        ValueError: unless 0 <= eta <= 1.
    """

    def __init__(self, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 and 1, got {eta}")
        self.eta = eta

    def step(self, estimate: Estimate, schedule: Schedule, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape, from the estimate at t."""
        alpha_s, sigma_s = schedule(s)
        variance = self.eta**2 * posterior(alpha_s, sigma_s, *schedule(t))[2]
        x_s = alpha_s * estimate.x_0 + torch.sqrt(sigma_s**2 - variance) * estimate.eps
        return x_s + variance.sqrt() * randn_like(x_s) if self.eta > 0 else x_s


class Multistep(OneEstimate):
    """x_s = alpha_s x_0 + sigma_s z: the estimated data, perturbed anew (Song et al. 2023a, Algorithm 1).

    The sampler of consistency models, whose x_0 is data, not its mean. DDIM's formula with all of sigma_s^2 drawn.
    """

    def step(self, estimate: Estimate, schedule: Schedule, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:  # noqa: ARG002
        """x_s of x_t's shape, from the estimate at t."""
        alpha_s, sigma_s = schedule(s)
        return alpha_s * estimate.x_0 + sigma_s * randn_like(estimate.x_t)


class _SDEStep(OneEstimate):
    """A step of the reverse SDE."""

    def check(self, schedule: Schedule) -> None:
        """Refuses a schedule that starts where the drift is infinite.

        Raises:
            ValueError: naming the alternatives.
        """
        if schedule.ends_in_noise:
            raise ValueError(
                f"{PURE_NOISE}, where the drift of its SDE is infinite: take ancestral, ddim, heun, dpm_solver"
            )


class ReverseDiffusion(_SDEStep):
    """x_s = (2 - alpha_ts) x_t + sigma_ts^2 score + sigma_ts z (Song et al. 2021a, Eq. 46 and App. E).

    The reverse SDE discretized as the forward one was: x_t = alpha_ts x_s + sigma_ts z.
    """

    def step(self, estimate: Estimate, schedule: Schedule, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape, from the estimate at t."""
        alpha_ts, variance = transition(*schedule(s), *schedule(t))
        mean = (2 - alpha_ts) * estimate.x_t + variance * estimate.score
        return mean + variance.sqrt() * randn_like(estimate.x_t)


class EulerMaruyama(_SDEStep):
    """x_s = x_t - (f x_t - g^2 score) (t - s) + g sqrt(t - s) z, the reverse SDE (Song et al. 2021a, Eq. 6)."""

    def check(self, schedule: Schedule) -> None:
        """Refuses discrete levels, which have no SDE, and an infinite drift.

        Raises:
            ValueError: naming the alternatives.
        """
        schedule.require_sde()
        super().check(schedule)

    def step(self, estimate: Estimate, schedule: Schedule, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape, from the estimate at t."""
        f, g2, step = schedule.drift(t), schedule.diffusion2(t), t - s
        mean = estimate.x_t - (f * estimate.x_t - g2 * estimate.score) * step
        return mean + (g2 * step).sqrt() * randn_like(estimate.x_t)
