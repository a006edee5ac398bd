"""The exact model of data that are a mixture of isotropic Gaussians."""

from functools import partial

import torch
from torch import Tensor

from score_lightning.models.estimate import Estimate, Prediction
from score_lightning.schedules import Schedule


class GaussianMixtureModel:
    """The exact estimate for data distributed as sum_k w_k N(mu_k, std^2 I), under any schedule.

    Perturbed, the mixture has means alpha mu_k and variance V = alpha^2 std^2 + sigma^2. With m the mean of mu_k over
    p(k | x_t),

        eps = sigma (x_t - alpha m) / V,    x_0 = (alpha std^2 x_t + sigma^2 m) / V

    Args:
        means: (K, D).
        std: standard deviation of every component.
        weights: (K,), positive; normalized here.
        schedule: the noise levels.

    Raises:
        ValueError: when the shapes do not fit or a weight is not positive.
    """

    def __init__(self, means: Tensor, std: float, weights: Tensor, schedule: Schedule) -> None:
        if means.ndim != 2 or weights.shape != means.shape[:1]:
            raise ValueError(f"means must be (K, D) and weights (K,), got {tuple(means.shape)}, {tuple(weights.shape)}")
        if std < 0 or not (weights > 0).all():
            raise ValueError("std must not be negative and every weight must be positive")
        self.means, self.std, self.weights, self.schedule = means, std, weights / weights.sum(), schedule
        self._prediction = Prediction(eps=partial(_eps_from_mean, std), x_0=partial(_x_0_from_mean, std))

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate for x_t of shape (B, D) at times t of shape () or (B,)."""
        alpha, sigma, variance = self._kernel(x_t, t)
        mean = self._log_components(x_t, alpha, variance).softmax(1) @ self.means.to(x_t)
        return Estimate(x_t, alpha, sigma, mean, self._prediction)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """ln p(x_t) in nats, of shape (B,)."""
        alpha, _, variance = self._kernel(x_t, t)
        normalizer = x_t.shape[1] / 2 * torch.log(2 * torch.pi * variance)
        return self._log_components(x_t, alpha, variance).logsumexp(1) - normalizer.flatten()

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n exact data points (n, D) and the components (n,) that they come from."""
        k = torch.multinomial(self.weights, n, replacement=True)
        return self.means[k] + self.std * torch.randn(n, self.means.shape[1], dtype=self.means.dtype), k

    def _kernel(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, sigma and the components' variance, of shape (1, 1) or (B, 1), on x_t's device."""
        alpha, sigma = (a.to(x_t).view(-1, 1) for a in self.schedule(t))
        return alpha, sigma, _variance(self.std, alpha, sigma)

    def _log_components(self, x_t: Tensor, alpha: Tensor, variance: Tensor) -> Tensor:
        distance2 = (x_t[:, None] - alpha[..., None] * self.means.to(x_t)).square().sum(-1)
        return self.weights.to(x_t).log() - distance2 / (2 * variance)


def _variance(std: float, alpha: Tensor, sigma: Tensor) -> Tensor:
    return alpha**2 * std**2 + sigma**2


def _eps_from_mean(std: float, mean: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return sigma * (x_t - alpha * mean) / _variance(std, alpha, sigma)


def _x_0_from_mean(std: float, mean: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * std**2 * x_t + sigma**2 * mean) / _variance(std, alpha, sigma)
