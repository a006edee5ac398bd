"""Solvers of the probability-flow ODE of second order, in variables that make it the same for every schedule.

With y = x / alpha and n = sigma / alpha the ODE is dy / dn = eps (Song et al. 2021b, Eq. 14; Karras et al. 2022,
Eq. 1 with s = 1): whatever the schedule, only eps is to be integrated. Euler's method for it is DDIM.
"""

import math

import torch
from torch import Tensor

from score_lightning.models import Model
from score_lightning.samplers.step import Step
from score_lightning.schedules import RandnLike, Schedule


class Heun:
    """Heun's second-order method; with churn, EDM's stochastic sampler (Karras et al. 2022, Algorithms 1 and 2).

    Algorithm 2 first adds noise, from n to n (1 + gamma), gamma = min(churn / steps, sqrt(2) - 1), where n lies in
    [churn_min, churn_max]: also before the final denoising, and beyond the most noise of a schedule that has a formula
    (the limit of a discrete one ends there).

    Args:
        churn: S_churn; 0 is deterministic.
        churn_min, churn_max: S_tmin and S_tmax, values of n.
        churn_noise: S_noise, what the added noise is multiplied by.

    Raises:
        ValueError: when churn is negative or churn_noise not positive.
    """

    evaluations = 2

    def __init__(
        self, churn: float = 0.0, churn_min: float = 0.0, churn_max: float = math.inf, churn_noise: float = 1.0
    ) -> None:
        if churn < 0 or not churn_noise > 0 or not churn_min <= churn_max:
            raise ValueError(
                f"Heun needs churn >= 0, churn_min <= churn_max and churn_noise > 0, got {churn}, {churn_min}, "
                f"{churn_max} and {churn_noise}"
            )
        self._churn, self._range, self._noise = churn, (churn_min, churn_max), churn_noise

    def check(self, schedule: Schedule) -> None:
        """Refuses to add noise between discrete levels.

        Raises:
            ValueError: naming the alternative.
        """
        if self._churn > 0:
            schedule.require_sde()

    def start(self, times: Tensor) -> Step:
        """Its step along these times."""
        return _HeunStep(min(self._churn / len(times), math.sqrt(2) - 1), self._range, self._noise)


class _HeunStep(Step):
    def __init__(self, gamma: float, churned: tuple[float, float], noise: float) -> None:
        self._gamma, self._churned, self._noise = gamma, churned, noise

    def __call__(self, model: Model, x: Tensor, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape."""
        x_hat, t_hat = self._add_noise(model.schedule, x, t, randn_like)
        alpha_t, alpha_s = model.schedule(t_hat)[0], model.schedule(s)[0]
        dn = model.schedule.ratio(s) - model.schedule.ratio(t_hat)
        d_cur = model(x_hat, t_hat).eps
        x_euler = alpha_s * (x_hat / alpha_t + dn * d_cur)
        d_prime = model(x_euler, s).eps
        return alpha_s * (x_hat / alpha_t + dn * (d_cur + d_prime) / 2)

    def denoise(self, model: Model, x: Tensor, t: Tensor, randn_like: RandnLike) -> Tensor:
        """E[x_0 | x_hat]: the last step of Algorithm 2, to no noise."""
        return super().denoise(model, *self._add_noise(model.schedule, x, t, randn_like), randn_like)

    def _add_noise(self, schedule: Schedule, x: Tensor, t: Tensor, randn_like: RandnLike) -> tuple[Tensor, Tensor]:
        """(x_hat, t_hat) of Algorithm 2, lines 4 to 6."""
        n = schedule.ratio(t)
        if self._gamma == 0 or not self._churned[0] <= n <= self._churned[1]:
            return x, t
        t_hat = schedule.inverse(n * (1 + self._gamma))
        alpha, alpha_hat = schedule(t)[0], schedule(t_hat)[0]
        added = (schedule.ratio(t_hat) ** 2 - n**2).clamp(min=0).sqrt()
        return alpha_hat * (x / alpha + added * self._noise * randn_like(x)), t_hat


class DPMSolverPP:
    """DPM-Solver++(2M): second order from one evaluation a step, with the step before (Lu et al. 2022, Algorithm 2)."""

    evaluations = 1

    def check(self, schedule: Schedule) -> None:
        """Makes sense with every schedule."""

    def start(self, times: Tensor) -> Step:  # noqa: ARG002
        """Its step, which remembers the one before."""
        return _Multistep()


class _Multistep(Step):
    def __init__(self) -> None:
        self._previous: tuple[Tensor, Tensor] | None = None  # x_0 and h

    def __call__(self, model: Model, x: Tensor, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:  # noqa: ARG002
        """x_s = (sigma_s / sigma_t) x - alpha_s (exp(-h) - 1) D, D = (1 + 1/2r) x_0 - (1/2r) x_0 of the step before.

        h is the step in lambda = ln(alpha / sigma), r = h of the step before / h.
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = model.schedule(t), model.schedule(s)
        h = torch.log(alpha_s / sigma_s) - torch.log(alpha_t / sigma_t)
        x_0 = D = model(x, t).x_0
        if self._previous is not None:
            x_0_previous, h_previous = self._previous
            D = x_0 + (x_0 - x_0_previous) * h / (2 * h_previous)
        self._previous = (x_0, h)
        return sigma_s / sigma_t * x - alpha_s * torch.expm1(-h) * D
