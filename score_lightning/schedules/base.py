"""What every noise schedule offers, and how times are spaced."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

MOST = 1_000_000  # levels or steps, which networks in float32 could not tell apart
Spacing = Literal["uniform", "quadratic", "log_snr", "karras", "leading", "trailing"]
"""How the times of a sampler are spaced, see `Discrete.times`."""

RandnLike = Callable[[Tensor], Tensor]
"""x -> standard normal numbers of x's shape, type and device, such as torch.randn_like."""

NO_SDE = (
    "discrete levels have no SDE: take VE, VP, SubVP or EDM, the limit of the schedule (continuous=true), or a sampler "
    "that needs none (reverse_diffusion, ancestral, ddim, heun, dpm_solver)"
)

PURE_NOISE = "this schedule has no signal at its highest noise level"
"""What errors say of a schedule whose alpha ends at 0."""


class Readings(Protocol):
    """What an estimate says about x_t, each of its shape."""

    @property
    def eps(self) -> Tensor:
        """E[eps | x_t]."""

    @property
    def velocity(self) -> Tensor:
        """E[eps - x_0 | x_t]."""


class Schedule:
    """t -> (alpha_t, sigma_t) of the kernel p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I); times grow with noise.

    Attributes:
        levels: number of noise levels; None where time is continuous.
        limit_of: number of levels of the discrete schedule that this one is the limit of; None for others.
        has_sde: whether there are `drift`, `diffusion2`, `time_of` and `inverse`: whether time is continuous.
        start: distribution of x at the most noise, gaussian or uniform.
        t_min, t_max: the times of the least and the most noise, of shape ().
        sampling_end: the time at which samplers end unless given another one; t_min when None.
    """

    levels: int | None = None
    limit_of: int | None = None
    has_sde = False
    start = "gaussian"
    sampling_end: float | None = None
    t_min: Tensor
    t_max: Tensor

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at times t, each float64 and of t's shape and device."""
        raise NotImplementedError

    def ratio(self, t: Tensor) -> Tensor:
        """n = sigma / alpha, the noise of x_t / alpha_t at times t; float64, of t's shape."""
        alpha, sigma = self(t)
        return sigma / alpha

    def require_sde(self) -> None:
        """Refuses a schedule without an SDE.

        Raises:
            ValueError: naming the alternatives.
        """
        if not self.has_sde:
            raise ValueError(NO_SDE)

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the signal is left at t_max: alpha is 0 there, and sigma / alpha infinite."""
        return bool(self.ratio(self.t_max).isinf())

    def flow(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(c, n) of the variables in which solvers integrate the probability flow, d(x / c) / dn = `slope`, at times t.

        alpha and sigma / alpha, for which the slope is eps (Song et al. 2021b, Eq. 14). Float64, of t's shape.
        """
        return self(t)[0], self.ratio(t)

    def flow_time(self, n: Tensor) -> Tensor:
        """The times of these n, or the nearest to them; float64. With `has_sde`."""
        return self.time_of(n)

    def slope(self, estimate: Readings) -> Tensor:
        """That of the probability flow in the variables of `flow`, of x_t's shape."""
        return estimate.eps

    def drift(self, t: Tensor) -> Tensor:  # noqa: ARG002
        """f(t), the coefficient of x in the SDE's drift; float64, of t's shape. With `has_sde`."""
        raise ValueError(NO_SDE)

    def diffusion2(self, t: Tensor) -> Tensor:  # noqa: ARG002
        """g(t)^2, the square of the SDE's diffusion; float64, of t's shape. With `has_sde`."""
        raise ValueError(NO_SDE)

    def time_of(self, ratio: Tensor) -> Tensor:  # noqa: ARG002
        """The times at which sigma / alpha has these values, or is nearest to them; float64. With `has_sde`."""
        raise ValueError(NO_SDE)

    def inverse(self, ratio: Tensor) -> Tensor:  # noqa: ARG002
        """The times at which sigma / alpha has these values, also beyond t_max, float64. With `has_sde`.

        The limit of a discrete schedule knows no values beyond, and gives the nearest of its times.
        """
        raise ValueError(NO_SDE)

    def at(self, u: Tensor) -> Tensor:
        """Times that are uniformly distributed when u, of any shape, is uniform on [0, 1)."""
        raise NotImplementedError

    def times(self, steps: int | None = None, spacing: Spacing = "uniform", end: float | None = None) -> Tensor:
        """(steps,) descending times, the most noise first, down to `end`: t_min when None."""
        raise NotImplementedError

    def prior(
        self,
        shape: Sequence[int],
        randn_like: RandnLike = torch.randn_like,
        t: Tensor | None = None,
        **options: object,
    ) -> Tensor:
        """x of the given shape where sampling starts: at time t of shape (), t_max when None.

        A uniform start, whatever the time, is Phi(z) of the same normal numbers. Options are those of torch.empty.
        """
        z = randn_like(torch.empty(*shape, **options))  # type: ignore[call-overload]
        if self.start == "uniform":
            return torch.special.ndtr(z)
        return z * self(self.t_max if t is None else t)[1].item()

    def continuous(self) -> "Schedule":
        """The continuous limit: itself where time is continuous."""
        raise NotImplementedError

    def spaced_ratios(self, share: Tensor, spacing: Spacing, end: Tensor | None = None) -> Tensor:
        """Values of sigma / alpha from `end` (share 0; t_min when None) to t_max (1), spaced by log_snr or karras.

        Raises:
            ValueError: where the last one is infinite.
        """
        if self.ends_in_noise:
            raise ValueError(
                f"spacing {spacing} needs a finite sigma / alpha, and {PURE_NOISE}: take uniform or quadratic"
            )
        low, high = self.ratio(self.t_min if end is None else end), self.ratio(self.t_max)
        if spacing == "log_snr":
            return (low.log() + share * (high.log() - low.log())).exp()
        return karras(low, high, share)


def shares(steps: int) -> Tensor:
    """(steps,) float64 numbers from 1 down to 0, evenly spaced; 1 alone of one.

    Raises:
        ValueError: unless steps is a whole number of at least 1 and at most `MOST`.
    """
    if int(steps) != steps or not 1 <= steps <= MOST:
        raise ValueError(f"steps must be a whole number of at least 1, and at most {MOST:,}, got {steps}")
    return torch.linspace(1, 0, steps, dtype=torch.float64)


def karras(low: Tensor, high: Tensor, share: Tensor, rho: float = 7.0) -> Tensor:
    """Noise levels that are uniform in sigma^(1/rho), low at share 0 and high at 1 (Karras et al. 2022, Eq. 5)."""
    low, high = low ** (1 / rho), high ** (1 / rho)
    return (low + share * (high - low)) ** rho
