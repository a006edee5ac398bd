"""Discrete schedules: finitely many noise levels.

A discrete schedule has the times 0 .. levels - 1 (int64), least noise first. Its tables are float64: the caller
casts where it multiplies. `geometric` is NCSN's ladder (alpha = 1), `linear_beta` and `cosine` are DDPM's
(alpha^2 + sigma^2 = 1).
"""

import math
from typing import get_args

import torch
from torch import Tensor

from score_lightning.perturbation import widest
from score_lightning.schedules.base import MOST, Schedule, Spacing, shares
from score_lightning.schedules.limit import Limit

LEAST_LOG_ALPHA2 = math.log(1e-14)  # below it 1 - alpha^2 no longer grows in float64


class Discrete(Schedule):
    """A schedule of finitely many noise levels, numbered 0 .. levels - 1 from the least noise to the most.

    Args:
        alpha: (levels,) factors of the signal, positive, not increasing.
        sigma: (levels,) standard deviations of the noise, positive, increasing.
        start: distribution of x at the most noise, `gaussian` N(0, sigma^2 I) or `uniform` U[0, 1] (NCSN's code).

    Raises:
        ValueError: when the tables are not finite, positive and ordered.
    """

    levels: int

    def __init__(self, alpha: Tensor, sigma: Tensor, start: str = "gaussian") -> None:
        if start not in ("gaussian", "uniform"):
            raise ValueError(f"start must be gaussian or uniform, got {start!r}")
        if not (torch.isfinite(alpha).all() and torch.isfinite(sigma).all() and (alpha > 0).all()):
            raise ValueError("alpha and sigma of a schedule must be finite and alpha positive")
        if not ((sigma > 0).all() and (sigma.diff() > 0).all() and (alpha.diff() <= 0).all()):
            raise ValueError("noise must be positive and grow with the level: sigma increasing, alpha not increasing")
        self.start, self.levels = start, len(alpha)
        self.t_min, self.t_max = torch.tensor(0), torch.tensor(self.levels - 1)
        self._values = (alpha.double(), sigma.double())
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at the integer times t, each float64 and of t's shape and device.

        Raises:
            TypeError: when t is not of an integer type.
            IndexError: when there is no such level; on a GPU as an assertion of the device.
        """
        if t.is_floating_point():
            raise TypeError(f"this schedule has the integer times 0 .. {self.levels - 1}; got {t.dtype}")
        key = t.device, widest(t)
        if key not in self._tables:
            with torch.inference_mode(False):
                alpha, sigma = (values.to(widest(t)).to(t.device) for values in self._values)
            self._tables[key] = (alpha, sigma)
        try:  # index_select, unlike an index, takes no negative one from the end
            alpha, sigma = (table.index_select(0, t.flatten()).view(t.shape) for table in self._tables[key])
        except IndexError as error:
            raise IndexError(
                f"this schedule has the integer times 0 .. {self.levels - 1}; got {int(t.min())} to {int(t.max())}"
            ) from error
        return alpha, sigma

    def at(self, u: Tensor) -> Tensor:
        """Times that are uniformly distributed over the levels when u, of any shape, is uniform on [0, 1)."""
        return (u * self.levels).long().clamp(max=self.levels - 1)

    def times(self, steps: int | None = None, spacing: Spacing = "uniform", end: float | None = None) -> Tensor:
        """(steps,) descending times, the most noise first; all levels when steps is None.

        `uniform` runs from the last level to level 0 inclusive, `quadratic` likewise with small times closer together
        (Song et al. 2021b, App. D.2). `log_snr` is uniform in ln(sigma / alpha), `karras` in (sigma / alpha)^(1/7)
        (Karras et al. 2022, Eq. 5), both at the nearest levels. `leading` is 0, c, 2c, ... with c = levels // steps,
        which starts below the last level: DDIM's published times where steps divides levels, and else the first `steps`
        of those (its code visits all multiples of c). `trailing` counts them down from the last level.

        Raises:
            ValueError: when steps is not in 1 .. levels, the spacing is unknown, or with another end than level 0.
        """
        if end is not None:
            raise ValueError(f"an end is of continuous times; discrete levels end at level 0, got end={end}")
        if steps is None:
            steps = self.levels
        if int(steps) != steps or not 1 <= steps <= self.levels:
            raise ValueError(
                f"steps must be a whole number between 1 and the schedule's {self.levels} levels, got {steps}"
            )
        last, grid, share = self.levels - 1, torch.arange(steps - 1, -1, -1, dtype=torch.float64), shares(steps)
        if spacing == "uniform":
            return (share * last).round().long()
        if spacing == "quadratic":
            return self._apart((share**2 * last).round().long())
        if spacing in ("log_snr", "karras"):
            return self._apart(self._nearest(self.spaced_ratios(share, spacing)))
        if spacing == "leading":
            return grid.long() * (self.levels // steps)
        if spacing == "trailing":
            return last - (grid.flip(0) * self.levels / steps).round().long()
        raise ValueError(f"spacing must be one of {', '.join(get_args(Spacing))}, got {spacing!r}")

    def continuous(self) -> Limit:
        """The continuous limit: a schedule with the same levels and all times between them."""
        alpha, sigma = self._values
        return Limit(alpha, sigma, self.start)

    def _nearest(self, ratio: Tensor) -> Tensor:
        """The levels whose ln(sigma / alpha) are nearest to those of the ratios."""
        table, wanted = self.ratio(torch.arange(self.levels)).log(), ratio.log()
        above = torch.searchsorted(table, wanted).clamp(0, self.levels - 1)
        below = (above - 1).clamp(min=0)
        return torch.where((wanted - table[below]).abs() <= (wanted - table[above]).abs(), below, above)

    def _apart(self, times: Tensor) -> Tensor:
        """Descending levels, those that are alike moved apart: up where there is room, else down."""
        steps, last = len(times), self.levels - 1
        up = times.flip(0)
        for i in range(1, steps):
            up[i] = torch.maximum(up[i], up[i - 1] + 1)
        return torch.minimum(up, torch.arange(last - steps + 1, last + 1)).flip(0)


def geometric(sigma_min: float, sigma_max: float, levels: int, start: str = "gaussian") -> Discrete:
    """NCSN's ladder: alpha = 1, sigma a geometric sequence (Song & Ermon 2019, Sec. 4.1).

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max and levels >= 2, or sigma_min > 0 and levels = 1.
    """
    _check_levels(levels)
    if sigma_min == 0:
        raise ValueError(
            "geometric needs 0 < sigma_min: without noise denoising has nothing to learn. For data as they are take "
            "objective=implicit or sliced with objective.clean=true"
        )
    if not 0 < sigma_min <= sigma_max or (sigma_min == sigma_max) != (levels == 1):
        raise ValueError(
            f"geometric needs 0 < sigma_min < sigma_max (equal for one level), got {sigma_min}, {sigma_max}, {levels}"
        )
    sigma = torch.linspace(math.log(sigma_min), math.log(sigma_max), levels, dtype=torch.float64).exp()
    return Discrete(torch.ones_like(sigma), sigma, start)


def linear_beta(beta_min: float, beta_max: float, levels: int) -> Discrete:
    """DDPM's schedule: beta_t linear in t, alpha_t^2 = prod (1 - beta) (Ho et al. 2020, Sec. 4 and Eq. 4).

    Raises:
        ValueError: unless 0 < beta_min <= beta_max < 1 and levels >= 1.
    """
    _check_levels(levels)
    if not 0 < beta_min <= beta_max < 1:
        raise ValueError(f"linear_beta needs 0 < beta_min <= beta_max < 1, got {beta_min}, {beta_max}")
    beta = torch.linspace(beta_min, beta_max, levels, dtype=torch.float64)
    if torch.log1p(-beta).sum() < LEAST_LOG_ALPHA2:
        scaled = [beta * 1000 / levels for beta in (beta_min, beta_max)]
        raise ValueError(
            f"linear_beta({beta_min}, {beta_max}, {levels}) leaves nothing of the signal long before the last level. "
            f"The betas of T levels scale by 1000 / T: for {levels} take {scaled[0]:g} and {scaled[1]:g}"
        )
    return from_betas(beta)


def cosine(levels: int, offset: float = 0.008, beta_max: float = 0.999) -> Discrete:
    """alpha_t^2 = f(t) / f(0), f(t) = cos^2((t/T + s) / (1 + s) pi/2) (Nichol & Dhariwal 2021, Eq. 17).

    beta_t = 1 - alpha_t^2 / alpha_{t-1}^2 is kept below beta_max, as the paper does.

    Raises:
        ValueError: when levels < 1.
    """
    _check_levels(levels)
    t = torch.arange(levels + 1, dtype=torch.float64) / levels
    f = ((t + offset) / (1 + offset) * math.pi / 2).cos() ** 2
    return from_betas((1 - f[1:] / f[:-1]).clamp(max=beta_max))


def from_betas(beta: Tensor) -> Discrete:
    """alpha_t^2 = prod (1 - beta), of beta (levels,), least noise first (Ho et al. 2020, Eq. 4)."""
    log_alpha2 = torch.log1p(-beta).cumsum(0)
    # expm1: 1 - exp(x) loses the digits of the smallest noise levels
    return Discrete((log_alpha2 / 2).exp(), (-torch.expm1(log_alpha2)).sqrt())


def _check_levels(levels: int) -> None:
    if not 1 <= levels <= MOST:
        raise ValueError(f"a schedule needs at least one level, and at most {MOST:,}, got {levels}")
