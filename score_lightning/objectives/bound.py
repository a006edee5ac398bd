"""DDPM's variational bound on the negative log-likelihood, term by term (Ho et al. 2020, Eq. 5).

    L_vlb = L_0 + L_1 + ... + L_{T-1} + L_T,
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),
    L_0 = -log p(x_0 | x_1),    L_T = KL(q(x_T | x_0) || p(x_T))

Times here count from 0: the term at time t >= 1 is the paper's L_t, that at 0 its L_0.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from score_lightning.models import Model
from score_lightning.perturbation import expand, perturb, posterior, transition
from score_lightning.schedules import Discrete, RandnLike, Schedule


class VariationalBound:
    """Terms of the bound in bits per dimension, times their number: over uniform times their mean is the whole but L_T.

    Args:
        variance: of p(x_{t-1} | x_t): `small`, the posterior's beta~, or `large`, beta. The first step's is beta~_2.
        low, high: range of pixels in the model, of 256 grey levels: the decoder's bins (Eq. 13).

    Raises:
        ValueError: for another variance, or an empty range.
    """

    def __init__(self, variance: Literal["large", "small"] = "small", low: float = -1.0, high: float = 1.0) -> None:
        if variance not in ("large", "small") or not low < high:
            raise ValueError(f"variance must be large or small, and low < high; got {variance!r}, {low} and {high}")
        self._large, self._range = variance == "large", (low, high)

    def check(self, schedule: Schedule, dim: int) -> None:  # noqa: ARG002
        """Refuses a schedule without levels.

        Raises:
            ValueError: with the alternative.
        """
        if schedule.levels is None or schedule.levels < 2:
            raise ValueError("the variational bound is of discrete levels, two or more: take linear_beta or cosine")

    def draw_t(self, schedule: Schedule, u: Tensor) -> Tensor:
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""
        return schedule.at(u)

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) terms of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        schedule = model.schedule
        assert schedule.levels is not None
        t = t.expand(len(x_0))
        data = model(perturb(x_0, *schedule(t), randn_like(x_0)), t).x_0
        # the posterior of the first step has no variance: it takes that of the second, and the decoder
        b, v_q, v_p = self.coefficients(schedule, t.clamp(min=1))
        gaussian = (torch.log(v_p / v_q) + v_q / v_p - 1) / 2
        kl = gaussian + b**2 / (2 * v_p) * (x_0 - data).double().square().flatten(1).mean(1)
        bits = torch.where(t == 0, self._decode(x_0, data, v_q), kl) / math.log(2)
        return (schedule.levels * bits).to(x_0.dtype)

    def coefficients(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(factor of x_0 in the posterior's mean, variance of q, variance of p) of the step from t >= 1 to t - 1."""
        kernels = (*schedule(t - 1), *schedule(t))
        _, b, v_q = posterior(*kernels)
        return b, v_q, transition(*kernels)[1] if self._large else v_q

    def prior_term(self, schedule: Discrete, x_0: Tensor) -> Tensor:
        """L_T in bits per dimension, (B,): of q(x_T | x_0) against the distribution that sampling starts from."""
        alpha, sigma = schedule(schedule.t_max)
        return (alpha / sigma) ** 2 * x_0.double().square().flatten(1).mean(1) / (2 * math.log(2))

    def _decode(self, x_0: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """-ln of the probability of each grey level's bin under N(mean, variance), the outer ones open; (B,)."""
        low, high = self._range
        half, std = (high - low) / 510, expand(variance.sqrt(), x_0).double()
        x, mean = x_0.double(), mean.double()
        upper = torch.where(x > high - half, torch.inf, (x + half - mean) / std)
        lower = torch.where(x < low + half, -torch.inf, (x - half - mean) / std)
        # of the two tails the one that does not cancel
        flip = lower > 0
        a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
        inside = torch.special.ndtr(b) - torch.special.ndtr(a)
        return -inside.clamp(min=1e-300).log().flatten(1).mean(1)


def bound_bits_per_dim(
    model: Model, x_0: Tensor, variance: Literal["large", "small"] = "small", randn_like: RandnLike = torch.randn_like
) -> tuple[Tensor, Tensor]:
    """(bits per dimension (B,), terms (T + 1, B)) of the whole bound, with one noise for each term; L_T is the last.

    Args:
        model: of a discrete schedule.
        x_0: (B, ...) images of 256 grey levels in [-1, 1].
        variance: see `VariationalBound`.
        randn_like: draws every normal number.

    Raises:
        ValueError: when the schedule is not discrete.
    """
    objective = VariationalBound(variance)
    objective.check(model.schedule, x_0[0].numel())
    schedule = model.schedule
    assert isinstance(schedule, Discrete)
    with torch.no_grad():
        times = torch.arange(schedule.levels, device=x_0.device)
        terms = [objective(model, x_0, t, randn_like) / schedule.levels for t in times]
        found = torch.stack([*terms, objective.prior_term(schedule, x_0).to(x_0.dtype)])
    return found.sum(0), found
