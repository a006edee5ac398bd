"""The Gaussian kernel that every method here perturbs data with, and its two conditionals.

    p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)

For s < t the chain is Markov, with the transition

    p(x_t | x_s) = N(alpha_ts x_s, sigma_ts^2 I),   alpha_ts = alpha_t / alpha_s,
                                                    sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2

and the posterior p(x_s | x_t, x_0), Gaussian again. DDPM's beta_t is sigma_ts^2 for s = t - 1.
"""

from typing import Literal

import torch
from torch import Tensor

Variance = Literal["large", "small", "learned"]
"""Of p(x_s | x_t): sigma_ts^2, the posterior's, or what the network learned between them."""


def expand(a: Tensor, x: Tensor) -> Tensor:
    """Coefficient `a` of shape () or (B,) in a shape and dtype that multiply x of shape (B, ...).

    A coefficient of shape () stays on its device: PyTorch multiplies it into tensors of any device.
    """
    if a.ndim == 0:
        return a
    return a.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def perturb(x_0: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
    """x_t = alpha x_0 + sigma eps, for x_0 and eps of shape (B, ...), alpha and sigma of shape () or (B,)."""
    return expand(alpha, x_0) * x_0 + expand(sigma, x_0) * eps


def transition(alpha_s: Tensor, sigma_s: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    """(alpha_ts, sigma_ts^2) of p(x_t | x_s), s < t (Kingma et al. 2021, Sec. 3.1)."""
    alpha_ts = alpha_t / alpha_s
    return alpha_ts, sigma_t**2 - alpha_ts**2 * sigma_s**2


def posterior(alpha_s: Tensor, sigma_s: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(a, b, variance) of p(x_s | x_t, x_0) = N(a x_t + b x_0, variance I), s < t (Ho et al. 2020, Eq. 6-7)."""
    alpha_ts, sigma2_ts = transition(alpha_s, sigma_s, alpha_t, sigma_t)
    a = alpha_ts * sigma_s**2 / sigma_t**2
    b = alpha_s * sigma2_ts / sigma_t**2
    return a, b, sigma_s**2 * sigma2_ts / sigma_t**2


def between(small: Tensor, large: Tensor, fraction: Tensor | None) -> Tensor:
    """The variance whose logarithm lies at a fraction between two, of its shape (Nichol & Dhariwal 2021, Eq. 15).

    Raises:
        ValueError: without a fraction: the network has not learned any.
    """
    if fraction is None:
        raise ValueError("this network has not learned variances: take small or large, or net.learned_variance=true")
    low, high = (expand(a, fraction).log() for a in (small, large))
    return torch.exp(low + fraction * (high - low))


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64: all but MPS."""
    return device.type != "mps"


def widest(x: Tensor) -> torch.dtype:
    """The floating-point type of most digits on x's device: float64, or float32 where there is none."""
    return torch.float64 if has_float64(x.device) else torch.float32
