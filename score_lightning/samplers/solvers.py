"""Solvers of higher order, in variables that make the probability-flow ODE the same for every schedule.

With y = x / alpha and n = sigma / alpha the ODE is dy / dn = eps (Song et al. 2021b, Eq. 14; Karras et al. 2022,
Eq. 1 with s = 1): whatever the schedule, only eps is to be integrated. Euler's method for it is DDIM. Rectified flow,
whose n is infinite at the start, has other variables (see the schedule's `flow`).
"""

import math
from collections import deque

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
        schedule = model.schedule
        (c_t, n_t), (c_s, n_s) = schedule.flow(t_hat), schedule.flow(s)
        dn = n_s - n_t
        d_cur = schedule.slope(model(x_hat, t_hat))
        x_euler = c_s * (x_hat / c_t + dn * d_cur)
        d_prime = schedule.slope(model(x_euler, s))
        return c_s * (x_hat / c_t + dn * (d_cur + d_prime) / 2)

    def denoise(self, model: Model, x: Tensor, t: Tensor, randn_like: RandnLike) -> Tensor:
        """E[x_0 | x_hat]: the last step of Algorithm 2, to no noise."""
        return super().denoise(model, *self._add_noise(model.schedule, x, t, randn_like), randn_like)

    def _add_noise(self, schedule: Schedule, x: Tensor, t: Tensor, randn_like: RandnLike) -> tuple[Tensor, Tensor]:
        """(x_hat, t_hat) of Algorithm 2, lines 4 to 6."""
        n = schedule.ratio(t)
        if self._gamma == 0 or not self._churned[0] <= n <= self._churned[1] or n.isinf():
            return x, t
        t_hat = schedule.inverse(n * (1 + self._gamma))
        alpha, alpha_hat = schedule(t)[0], schedule(t_hat)[0]
        added = (schedule.ratio(t_hat) ** 2 - n**2).clamp(min=0).sqrt()
        return alpha_hat * (x / alpha + added * self._noise * randn_like(x)), t_hat


class DPMSolverPP:
    """DPM-Solver++ in its multistep form: up to third order from one evaluation a step (Lu et al. 2022, Eq. 9, Alg. 2).

    With lambda = ln(alpha / sigma), h its step and H = (1 + eta) h,

        x_s = (sigma_s / sigma_t) exp(-eta h) x_t + alpha_s int_0^H exp(u - H) x_0(lambda_t + u / (1 + eta)) du
            + sigma_s sqrt(1 - exp(-2 eta h)) z

    where x_0 is extrapolated by a polynomial through the estimates so far: `order` of them, fewer in the first steps.
    Order 2 takes the slope in the middle of the step, as published. Order 3 integrates the parabola exactly; the
    published formula (App. B) has half of its last term, and converges in second order only.
    Where a step in lambda is much longer than the one before, as the last one of uniform times is, orders 2 and 3
    overshoot, order 3 and eta > 0 most.

    Args:
        order: 1, 2 or 3. The first is DDIM.
        eta: 0 for the probability-flow ODE, 1 for the reverse SDE, which at order 1 is Ancestral("small").

    Raises:
        ValueError: for another order, or an eta that is negative.
    """

    evaluations = 1

    def __init__(self, order: int = 2, eta: float = 0.0) -> None:
        if order not in (1, 2, 3) or not eta >= 0:
            raise ValueError(f"DPM-Solver++ needs an order of 1, 2 or 3 and eta >= 0, got {order} and {eta}")
        self.order, self.eta = order, eta

    def check(self, schedule: Schedule) -> None:
        """Makes sense with every schedule."""

    def start(self, times: Tensor) -> Step:  # noqa: ARG002
        """Its step, which remembers those before."""
        return _Multistep(self.order, self.eta)


class _Multistep(Step):
    def __init__(self, order: int, eta: float) -> None:
        self._eta = eta
        self._before: deque[tuple[Tensor, Tensor]] = deque(maxlen=order - 1)  # x_0 and h of each step, the last first

    def __call__(self, model: Model, x: Tensor, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s of x_t's shape."""
        sigma_t, (alpha_s, sigma_s) = model.schedule(t)[1], model.schedule(s)
        n_t, n_s = model.schedule.ratio(t), model.schedule.ratio(s)
        h = torch.log(n_t / n_s)
        x_0 = model(x, t).x_0
        x_s = sigma_s / sigma_t * (n_s / n_t) ** self._eta * x + alpha_s * self._integral(x_0, h)
        self._before.appendleft((x_0, h))
        if self._eta == 0:
            return x_s
        return x_s + sigma_s * torch.sqrt(-torch.expm1(-2 * self._eta * h)) * randn_like(x)

    def _integral(self, x_0: Tensor, h: Tensor) -> Tensor:
        """Of the extrapolated x_0 over the step."""
        total = (1 + self._eta) * h
        share = -torch.expm1(-total)
        if not self._before:
            return share * x_0
        slope = (x_0 - self._before[0][0]) / self._before[0][1]
        if len(self._before) == 1:
            return share * (x_0 + slope * h / 2)
        (middle, h_1), (first, h_2) = self._before
        curve = (slope - (middle - first) / h_2) / (h_1 + h_2)
        phi = 1 - share / total
        return share * x_0 + h * phi * (slope + h_1 * curve) + h**2 * (1 - 2 * phi / total) * curve
