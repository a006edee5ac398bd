"""Continuous schedules: a kernel at every time, from log alpha(t) and sigma(t) alone.

The SDE dx = f(t) x dt + g(t) dw that has this kernel follows from it (Song et al. 2021a, Eq. 5 and App. B):

    f = d log alpha / dt,    g^2 = d sigma^2 / dt - 2 f sigma^2

so that no SDE can disagree with its kernel. Both derivatives are taken by automatic differentiation, in float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from score_lightning.perturbation import widest
from score_lightning.schedules.base import Schedule, Spacing, karras, shares


class Continuous(Schedule):
    """A schedule of all times in [t_min, t_max], the most noise at t_max."""

    has_sde = True

    def __init__(self, t_min: float, t_max: float = 1.0) -> None:
        if not 0 < t_min < t_max:
            raise ValueError(f"times of a schedule need 0 < t_min < {t_max}, got {t_min}")
        self._set_ends(t_min, t_max)

    def _set_ends(self, t_min: float, t_max: float) -> None:
        self._ends = (t_min, t_max)
        self.t_min, self.t_max = (torch.tensor(t, dtype=torch.float64) for t in self._ends)

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t), of t's shape."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t), of t's shape."""
        raise NotImplementedError

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at times t, each float64 and of t's shape and device."""
        t = _wide(t)
        return self.log_alpha(t).exp(), self.sigma(t)

    def drift(self, t: Tensor) -> Tensor:
        """f(t), the coefficient of x in the SDE's drift; float64, of t's shape."""
        t = _wide(t)
        return _derivative(self.log_alpha, t)

    def diffusion2(self, t: Tensor) -> Tensor:
        """g(t)^2, the square of the SDE's diffusion; float64, of t's shape."""
        t = _wide(t)
        return _derivative(lambda t: self.sigma(t) ** 2, t) - 2 * self.drift(t) * self.sigma(t) ** 2

    def at(self, u: Tensor) -> Tensor:
        """Times uniform on [t_min, t_max] when u, of any shape, is uniform on [0, 1)."""
        first, last = self._ends
        return first + u * (last - first)

    def times(self, steps: int | None = None, spacing: Spacing = "uniform", end: float | None = None) -> Tensor:
        """(steps,) descending float64 times from t_max to `end`, t_min when None; 1000 when steps is None.

        `uniform` in t, `quadratic` in its root, `log_snr` in ln(sigma / alpha), `karras` in (sigma / alpha)^(1/7)
        (Karras et al. 2022, Eq. 5).

        Raises:
            ValueError: when steps is less than 1, the spacing is unknown or `end` no time before t_max.
        """
        share, last = shares(1000 if steps is None else steps), self._last(end)
        if spacing in ("log_snr", "karras"):
            return self.time_of(self.spaced_ratios(share, spacing, last))
        if spacing not in ("uniform", "quadratic"):
            raise ValueError(f"continuous times have the spacings uniform, quadratic, log_snr, karras; got {spacing!r}")
        return last + (self.t_max - last) * (share if spacing == "uniform" else share**2)

    def _last(self, end: float | None) -> Tensor:
        if end is None:
            return self.t_min
        if not self.t_min <= end < self.t_max:
            raise ValueError(
                f"sampling must end at a time from {self.t_min.item():g} to below {self.t_max.item():g}, got {end}"
            )
        return torch.tensor(end, dtype=torch.float64)

    def time_of(self, ratio: Tensor) -> Tensor:
        """The times in [t_min, t_max] at which sigma / alpha has these values, or is nearest to them; float64."""
        ratio = _wide(ratio)
        return self.inverse(ratio).clamp(*self._ends)

    def continuous(self) -> "Continuous":
        """Itself."""
        return self


class VE(Continuous):
    """Variance exploding, the limit of NCSN: alpha = 1, sigma(t) = sigma_min (sigma_max / sigma_min)^t.

    Song et al. 2021a, Eq. 31.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, t_min: float = 1e-5) -> None:
        super().__init__(t_min)
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"VE needs 0 < sigma_min < sigma_max, got {sigma_min}, {sigma_max}")
        self._log_min, self._log_ratio = math.log(sigma_min), math.log(sigma_max / sigma_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t), of t's shape."""
        return (self._log_min + t * self._log_ratio).exp()

    def inverse(self, ratio: Tensor) -> Tensor:
        """t = ln(n / sigma_min) / ln(sigma_max / sigma_min)."""
        return (ratio.log() - self._log_min) / self._log_ratio


class VP(Continuous):
    """Variance preserving, the limit of DDPM: beta(t) linear, log alpha(t) = -1/2 integral of beta from 0 to t.

    Song et al. 2021a, Eq. 33; alpha^2 + sigma^2 = 1. Samplers end at time 1e-3 (App. C): a uniform step from there to
    1e-5 would add noise that the denoising at 1e-5 cannot see.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-5) -> None:
        super().__init__(t_min)
        if not 0 < beta_min <= beta_max:
            raise ValueError(f"{type(self).__name__} needs 0 < beta_min <= beta_max, got {beta_min}, {beta_max}")
        self._beta_min, self._beta_max = beta_min, beta_max
        self.sampling_end = max(t_min, 1e-3)

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t), of t's shape."""
        return -(t**2) * (self._beta_max - self._beta_min) / 4 - t * self._beta_min / 2

    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t), of t's shape."""
        # expm1: 1 - exp(-B) loses its digits at small times
        return (-torch.expm1(2 * self.log_alpha(t))).sqrt()

    def inverse(self, ratio: Tensor) -> Tensor:
        """As n^2 = exp(-2 log alpha) - 1."""
        return self._time_of_alpha(torch.log1p(ratio**2) / 2)

    def _time_of_alpha(self, b: Tensor) -> Tensor:
        """The time of -log alpha = b: the root of (beta_max - beta_min) t^2 / 4 + beta_min t / 2 = b."""
        half = self._beta_min / 2
        return 2 * b / (half + (half**2 + (self._beta_max - self._beta_min) * b).sqrt())


class SubVP(VP):
    """Sub-VP: VP's alpha with sigma = 1 - alpha^2, less noise at every time (Song et al. 2021a, Eq. 29 and 33)."""

    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t), of t's shape."""
        return -torch.expm1(2 * self.log_alpha(t))

    def inverse(self, ratio: Tensor) -> Tensor:
        """As n = 1 / alpha - alpha = 2 sinh(-log alpha)."""
        return self._time_of_alpha(torch.asinh(ratio / 2))


class EDM(Continuous):
    """EDM's: alpha = 1, sigma(t) = t, so times are standard deviations (Karras et al. 2022, Table 1).

    Uniform times are those of its Eq. 5: uniform in sigma^(1/rho).

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max and rho > 0.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        if not 0 < sigma_min < sigma_max or not rho > 0:
            raise ValueError(f"EDM needs 0 < sigma_min < sigma_max and rho > 0, got {sigma_min}, {sigma_max}, {rho}")
        super().__init__(sigma_min, sigma_max)
        self._rho = rho

    def log_alpha(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """t."""
        return t

    def inverse(self, ratio: Tensor) -> Tensor:
        """t = n."""
        return ratio

    def times(self, steps: int | None = None, spacing: Spacing = "uniform", end: float | None = None) -> Tensor:
        """As `Continuous.times`, but that `uniform` times are uniform in sigma^(1/rho)."""
        if spacing != "uniform":
            return super().times(steps, spacing, end)
        return karras(self._last(end), self.t_max, shares(1000 if steps is None else steps), self._rho)


def _wide(t: Tensor) -> Tensor:
    return t.to(widest(t))


def _derivative(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """df/dt of a function that maps each time by itself."""
    with torch.inference_mode(False), torch.enable_grad():
        t = t.detach().clone().requires_grad_()
        value = f(t)
        # a constant has no graph
        return torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t).detach()
