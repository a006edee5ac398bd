"""Denoising score matching, with the weights and distributions of times of every paper here.

At the noise level t (Vincent 2011; Song & Ermon 2019, Eq. 5),

    lambda(t) mean |score(x_t, t) + eps / sigma|^2 = lambda(t) / sigma^2 mean |eps_hat - eps|^2,

is NCSN's loss and, with lambda = sigma^2, DDPM's L_simple (Ho et al. 2020, Eq. 14): one function.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from score_lightning.models import Estimate, Model
from score_lightning.perturbation import perturb, widest
from score_lightning.schedules import PURE_NOISE, RandnLike, Schedule


@dataclass(frozen=True)
class Weight:
    """lambda(schedule, t), the weight of the score loss, float64 and of t's shape.

    Args:
        of: the function.
        needs_sde: whether it makes sense of schedules with an SDE only.
    """

    of: Callable[[Schedule, Tensor], Tensor]
    needs_sde: bool = False

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """(schedule, t of any shape) -> lambda, of t's shape."""
        return self.of(schedule, t)

    def factor(self, schedule: Schedule, t: Tensor) -> Tensor:
        """That of the squared `error`, of t's shape: lambda / sigma^2, since score = -eps / sigma."""
        return self(schedule, t) / schedule(t)[1] ** 2

    def error(self, estimate: Estimate, x_0: Tensor, eps: Tensor) -> Tensor:  # noqa: ARG002
        """That of eps, of x_0's shape (B, ...)."""
        return estimate.eps - eps


class VelocityWeight(Weight):
    """lambda = (sigma + sigma^2 / alpha)^2: 1 on the loss of the velocity, which is finite where alpha is 0, too."""

    def factor(self, schedule: Schedule, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(schedule(t)[1])

    def error(self, estimate: Estimate, x_0: Tensor, eps: Tensor) -> Tensor:
        """That of eps - x_0."""
        return estimate.velocity - (eps - x_0)


Times = Literal["uniform", "antithetic", "log_normal", "importance"]


def weigh(name: str, gamma: float = 5.0, sigma_data: float = 0.5) -> Weight:
    """The weight of this name.

    sigma2 makes every level count alike (Song & Ermon 2019, Sec. 4.2). min_snr is min(SNR, gamma) on the x_0 loss, that
    is min(1, gamma / SNR) on the eps loss, SNR = alpha^2 / sigma^2 (Hang et al. 2023). likelihood is g^2 (Song et al.
    2021c, Eq. 8), of continuous schedules. edm is (n^2 + sigma_data^2) / (n sigma_data)^2 on the x_0 loss, n = sigma /
    alpha (Karras et al. 2022, Table 1). velocity is 1 on the loss of eps - x_0, flow matching's (Lipman et al. 2023,
    Eq. 23).

    Raises:
        ValueError: for an unknown name, or a gamma or sigma_data that is not positive.
    """
    if not gamma > 0 or not sigma_data > 0:
        raise ValueError(f"gamma must be positive, and sigma_data; got {gamma} and {sigma_data}")

    def min_snr(schedule: Schedule, t: Tensor) -> Tensor:
        alpha, sigma = schedule(t)
        return sigma**2 * (gamma * sigma**2 / alpha**2).clamp(max=1)

    weights = {
        "sigma2": Weight(lambda schedule, t: schedule(t)[1] ** 2),
        "uniform": Weight(lambda schedule, t: torch.ones_like(schedule(t)[1])),
        "min_snr": Weight(min_snr),
        "likelihood": Weight(lambda schedule, t: schedule.diffusion2(t), needs_sde=True),
        "edm": Weight(lambda schedule, t: schedule(t)[1] ** 2 * ((schedule.ratio(t) / sigma_data) ** 2 + 1)),
        "velocity": VelocityWeight(lambda schedule, t: (schedule(t)[1] * (1 + schedule.ratio(t))) ** 2),
    }
    if name not in weights:
        raise ValueError(f"unknown weight {name!r}; choose one of {', '.join(weights)}")
    return weights[name]


class Weighted:
    """An objective with a weight lambda(t) and t uniform over the schedule.

    Args:
        weight: see `weigh`.

    Attributes:
        needs_sde: whether it makes sense of schedules with an SDE only.
        stratified: whether times are to be drawn from stratified u, see `Objective`.
    """

    stratified = False

    def __init__(self, weight: Weight) -> None:
        self._weight, self.needs_sde = weight, weight.needs_sde

    def check(self, schedule: Schedule, dim: int) -> None:  # noqa: ARG002
        """Refuses a schedule that the weight or the times make no sense with.

        Raises:
            ValueError: with the alternative.
        """
        if self.needs_sde:
            schedule.require_sde()
        if not self._weight.factor(schedule, schedule.t_max).isfinite():
            raise ValueError(f"the weight is infinite where {PURE_NOISE}: take velocity, sigma2 or uniform")

    def draw_t(self, schedule: Schedule, u: Tensor) -> Tensor:
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""
        return schedule.at(u)


def log_normal_times(schedule: Schedule, u: Tensor, mean: float, std: float) -> Tensor:
    """Times with ln(sigma / alpha) ~ N(mean, std^2), from u uniform on [0, 1), of its shape (Karras et al. 2022)."""
    wide = u.to(widest(u))
    inside = wide.clamp(1e-9, 1 - max(1e-9, torch.finfo(wide.dtype).eps))
    return schedule.time_of((mean + std * math.sqrt(2) * torch.erfinv(2 * inside - 1)).exp())


class _Density(NamedTuple):
    """Of training times, in proportion to lambda / sigma^2, on a fine grid.

    Args:
        times: (N,) ascending.
        cumulative: (N,), their distribution function.
        mean: (), that of lambda / sigma^2 over time.
    """

    times: Tensor
    cumulative: Tensor
    mean: Tensor


class Denoising(Weighted):
    """Denoising score matching with the weight lambda(t).

    Args:
        weight: sigma2, uniform, min_snr, likelihood, edm or velocity (see `weigh`).
        times: how training times are distributed: uniform over the schedule; antithetic, uniform in pairs that mirror
            each other (the code of Song et al. 2021b); log_normal, ln(sigma / alpha) ~
            N(log_mean, log_std^2) (Karras et al. 2022, Table 1); or importance, with density lambda / sigma^2 and the
            loss divided by it, which has the same expectation and less variance (Song et al. 2021c, Sec. 5.1).
        gamma: the largest signal-to-noise ratio that min_snr counts.
        sigma_data: standard deviation of the data, for edm.
        log_mean, log_std: of log_normal times.
        stratified: whether a batch of B images takes one time from each of B equal shares of the distribution: less
            variance with the same expectation (compare Kingma et al. 2021, App. I.1).

    Raises:
        ValueError: for an unknown weight or distribution, a number that is not positive, or antithetic times that are
            to be stratified.
    """

    def __init__(
        self,
        weight: str = "sigma2",
        times: Times = "uniform",
        gamma: float = 5.0,
        sigma_data: float = 0.5,
        log_mean: float = -1.2,
        log_std: float = 1.2,
        stratified: bool = False,
    ) -> None:
        if times not in get_args(Times):
            raise ValueError(f"times must be one of {', '.join(get_args(Times))}, got {times!r}")
        if not log_std > 0:
            raise ValueError(f"log_std must be positive, got {log_std}")
        if stratified and times == "antithetic":
            raise ValueError("antithetic times are drawn in pairs; leave out stratified")
        super().__init__(weigh(weight, gamma, sigma_data))
        self.stratified = stratified
        self.needs_sde = self.needs_sde or times in ("log_normal", "importance")
        self._times = times
        self._log = (log_mean, log_std)
        self._tabulated: Schedule | None = None
        self._tables: dict[torch.device, _Density] = {}

    def check(self, schedule: Schedule, dim: int) -> None:
        """Refuses a schedule that the weight or the times make no sense with.

        Raises:
            ValueError: with the alternative.
        """
        super().check(schedule, dim)
        if self._times == "importance" and schedule.ends_in_noise:
            raise ValueError(f"importance has no density of times where {PURE_NOISE}: take uniform or log_normal")

    def draw_t(self, schedule: Schedule, u: Tensor) -> Tensor:
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""
        if self._times == "uniform":
            return super().draw_t(schedule, u)
        if self._times == "antithetic":
            t = super().draw_t(schedule, u)
            odd = torch.arange(len(t), device=t.device) % 2 == 1
            return torch.where(odd, schedule.t_min + schedule.t_max - t.roll(1), t)
        if self._times == "log_normal":
            return log_normal_times(schedule, u, *self._log)
        grid, cumulative, _ = self._density(schedule, u)
        i = torch.searchsorted(cumulative, u.to(cumulative).contiguous(), right=True).clamp(1, len(grid) - 1)
        share = (u - cumulative[i - 1]) / (cumulative[i] - cumulative[i - 1])
        return grid[i - 1] + share * (grid[i] - grid[i - 1])

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        eps = randn_like(x_0)
        estimate = model(perturb(x_0, *model.schedule(t), eps), t)
        weight = self._weight.factor(model.schedule, t)
        if self._times == "importance":  # lambda / sigma^2 over its share of the whole
            density = self._weight(model.schedule, t) / model.schedule(t)[1] ** 2
            weight = weight / density * self._density(model.schedule, weight).mean.to(weight)
        return weight.to(x_0.dtype) * self._weight.error(estimate, x_0, eps).square().flatten(1).mean(1)

    def _density(self, schedule: Schedule, like: Tensor) -> _Density:
        """That of the schedule, on the device of a tensor; those of the last schedule asked for are kept."""
        if self._tabulated is not schedule:
            self._tabulated, self._tables = schedule, {}
        if like.device not in self._tables:
            table = _tabulate(self._weight, schedule)
            self._tables[like.device] = _Density(*(part.to(widest(like)).to(like.device) for part in table))
        return self._tables[like.device]


def _tabulate(weight: Weight, schedule: Schedule) -> _Density:
    first, last = (schedule.ratio(t).log10().item() for t in (schedule.t_min, schedule.t_max))
    grid = schedule.time_of(torch.logspace(first, last, 20_001, dtype=torch.float64))
    density = weight(schedule, grid) / schedule(grid)[1] ** 2
    mass = (density[1:] + density[:-1]) / 2 * grid.diff()
    cumulative = torch.cat([mass.new_zeros(1), mass.cumsum(0)])
    return _Density(grid, cumulative / cumulative[-1], cumulative[-1] / (schedule.t_max - schedule.t_min))
