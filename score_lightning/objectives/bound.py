"""DDPM's variational bound on the negative log-likelihood, term by term (Ho et al. 2020, Eq. 5).

    L_vlb = L_0 + L_1 + ... + L_{T-1} + L_T,
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),
    L_0 = -log p(x_0 | x_1),    L_T = KL(q(x_T | x_0) || p(x_T))

Times here count from 0: the term at time t >= 1 is the paper's L_t, that at 0 its L_0.
"""

import math
from typing import get_args

import torch
from torch import Tensor

from score_lightning.conditional import Clipped
from score_lightning.models import Estimate, Model
from score_lightning.perturbation import Variance, between, expand, perturb, posterior, transition, widest
from score_lightning.schedules import RandnLike, Schedule


class VariationalBound:
    """Terms of the bound in bits per dimension, times their number: over uniform times their mean is the whole but L_T.

    Args:
        variance: of p(x_{t-1} | x_t): `small`, the posterior's beta~, `large`, beta, or `learned` between them. The
            first step has no beta~ and takes beta~_2, of which `large` is the same there.
        low, high: range of pixels in the model.
        gray_levels: from low to high: the decoder's bins (Eq. 13).

    Raises:
        ValueError: for another variance, or a range without gray levels.
    """

    stratified = False

    def __init__(
        self, variance: Variance = "small", low: float = -1.0, high: float = 1.0, gray_levels: int | None = 256
    ) -> None:
        if math.isinf(high - low) or gray_levels is None:
            raise ValueError("the variational bound is of images of gray levels: of points or floats take denoising")
        if variance not in get_args(Variance) or not low < high:
            raise ValueError(
                f"variance must be one of {', '.join(get_args(Variance))}, and low < high; got {variance!r}, {low} "
                f"and {high}"
            )
        self._variance, self._range, self._half_bin = variance, (low, high), (high - low) / (2 * (gray_levels - 1))

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
        t = t.expand(len(x_0))
        return self.terms(model.schedule, model(perturb(x_0, *model.schedule(t), randn_like(x_0)), t), x_0, t)

    def terms(self, schedule: Schedule, estimate: Estimate, x_0: Tensor, t: Tensor) -> Tensor:
        """(B,) terms of x_0 (B, ...) from the estimate at x_t, for times t (B,)."""
        assert schedule.levels is not None
        wide = widest(x_0)
        b, v_q, v_p = (expand(a, x_0).to(wide) for a in self.coefficients(schedule, t))
        if self._variance == "learned":
            fraction = None if estimate.fraction is None else estimate.fraction.to(wide)
            v_p = between(v_q, v_p, fraction)
        error = (x_0 - estimate.x_0).to(wide)
        kl = (torch.log(v_p / v_q) + (v_q + (b * error) ** 2) / v_p - 1) / 2
        nats = kl.flatten(1).mean(1)
        # only t = 0 is decoded; a GPU, whose host would have to wait for their number, decodes all in the type of x_0
        on_cpu = x_0.device.type == "cpu"
        rows = (t == 0).nonzero()[:, 0] if on_cpu else torch.arange(len(t), device=t.device)
        of_rows = (x[rows].to(wide if on_cpu else x_0.dtype) for x in (x_0, estimate.x_0, v_p))
        decoded = self._decode(*of_rows).flatten(1).mean(1).to(wide)
        nats = torch.where(t == 0, nats.index_copy(0, rows, decoded), nats)
        return (schedule.levels / math.log(2) * nats).to(x_0.dtype)

    def coefficients(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(factor of x_0 in the posterior's mean, variance of q, variance of p or its upper end) of the step from t.

        The posterior of the first step has no variance: it takes that of the second.
        """
        later = t.clamp(min=1)
        kernels = (*schedule(later - 1), *schedule(later))
        _, b, v_q = posterior(*kernels)
        if self._variance == "small":
            return b, v_q, v_q
        first = schedule(t)[1] ** 2 if self._variance == "learned" else v_q
        return b, v_q, torch.where(t == 0, first, transition(*kernels)[1])

    def prior_term(self, schedule: Schedule, x_0: Tensor) -> Tensor:
        """L_T in bits per dimension, (B,): of q(x_T | x_0) against N(0, sigma_T^2 I)."""
        alpha, sigma = schedule(schedule.t_max)
        return (alpha / sigma) ** 2 * x_0.to(widest(x_0)).square().flatten(1).mean(1) / (2 * math.log(2))

    def _decode(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """-ln of the probability of each gray level's bin under N(mean, variance), the outer ones open."""
        low, high = self._range
        half, std = self._half_bin, variance.sqrt()
        upper = torch.where(x > high - half, torch.inf, (x + half - mean) / std)
        lower = torch.where(x < low + half, -torch.inf, (x - half - mean) / std)
        # of the two tails the one that does not cancel
        flip = lower > 0
        a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
        inside = (torch.erfc(-b / math.sqrt(2)) - torch.erfc(-a / math.sqrt(2))) / 2
        return -inside.clamp(min=torch.finfo(x.dtype).tiny).log()


class Hybrid:
    """L_simple + 0.001 L_vlb, whose gradient reaches the learned variances only (Nichol & Dhariwal 2021, Eq. 16).

    Args:
        weight: of L_vlb, in bits per dimension.
        low, high, gray_levels: as of `VariationalBound`.
    """

    stratified = False

    def __init__(
        self, weight: float = 0.001, low: float = -1.0, high: float = 1.0, gray_levels: int | None = 256
    ) -> None:
        self._bound, self._weight = VariationalBound("learned", low, high, gray_levels), weight
        self.check, self.draw_t = self._bound.check, self._bound.draw_t

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        t, eps = t.expand(len(x_0)), randn_like(x_0)
        estimate = model(perturb(x_0, *model.schedule(t), eps), t)
        simple = (estimate.eps - eps).square().flatten(1).mean(1)
        return simple + self._weight * self._bound.terms(model.schedule, estimate.detach(), x_0, t)


def bound_bits_per_dim(
    model: Model,
    x_0: Tensor,
    variance: Variance = "small",
    randn_like: RandnLike = torch.randn_like,
    pixels: tuple[float, float] = (-1.0, 1.0),
    gray_levels: int | None = 256,
) -> tuple[Tensor, Tensor]:
    """(bits per dimension (B,), terms (T + 1, B)) of the whole bound, with one noise for each term; L_T is the last.

    The estimated x_0 is clipped to the range of the pixels, as in the code of Ho et al. 2020 and of Nichol & Dhariwal
    2021: where alpha is smallest an unclipped one would be most of the bound. Training does not clip.

    Args:
        model: of a discrete schedule.
        x_0: (B, ...) images of gray levels.
        variance: see `VariationalBound`.
        randn_like: draws every normal number.
        pixels: range of x_0.
        gray_levels: in that range.

    Raises:
        ValueError: when the schedule is not discrete, there are no gray levels, or learned variances are asked of a
            network without any.
    """
    objective = VariationalBound(variance, *pixels, gray_levels)
    objective.check(model.schedule, x_0.shape[1:].numel())
    schedule, clipped = model.schedule, Clipped(model, *pixels)
    assert schedule.levels is not None
    with torch.no_grad():
        times = torch.arange(schedule.levels, device=x_0.device)
        terms = [objective(clipped, x_0, t, randn_like) / schedule.levels for t in times]
        every = torch.stack([*terms, objective.prior_term(schedule, x_0).to(x_0.dtype)])
    return every.sum(0), every
