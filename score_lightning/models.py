"""A score model: network, schedule and prediction joined, and what it returns.

The network's output is read as one of four quantities, all equivalent given x_t, alpha and sigma:

    score = grad log p(x_t),    eps = -sigma score,    x_0 = (x_t - sigma eps) / alpha  (Tweedie),
    v = alpha eps - sigma x_0   (Salimans & Ho 2022, App. D),   and EDM's preconditioned x_0 (Karras et al. 2022)

A prediction turns the output into eps, from which `Estimate` derives the others: eps is of order one at every noise
level, where the score diverges as sigma goes to 0. A conditioning turns (t, sigma) into what the network embeds.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from score_lightning.networks.energy import Energy
from score_lightning.perturbation import expand
from score_lightning.schedules import Schedule


@dataclass(frozen=True)
class Estimate:
    """What a model says about x_t: `score`, `eps` and `x_0`, each of x_t's shape (B, ...).

    Args:
        x_t: (B, ...) perturbed data.
        alpha, sigma: of the kernel, of shape () or (B, 1, ...).
        eps: (B, ...) the expected standard noise in x_t.
        fraction: (B, ...) of networks that learn variances, where those of a step back lie between the logarithms of
            the posterior's, 0, and beta's, 1 (Nichol & Dhariwal 2021, Eq. 15); may leave [0, 1].
    """

    x_t: Tensor
    alpha: Tensor
    sigma: Tensor
    eps: Tensor
    fraction: Tensor | None = None

    @property
    def score(self) -> Tensor:
        """grad_x log p(x_t) = -eps / sigma (Vincent 2011)."""
        return -self.eps / self.sigma

    @property
    def x_0(self) -> Tensor:
        """E[x_0 | x_t] = (x_t - sigma eps) / alpha (Tweedie's formula; Ho et al. 2020, Eq. 15)."""
        return (self.x_t - self.sigma * self.eps) / self.alpha

    def clip(self, low: float, high: float) -> "Estimate":
        """The same with x_0 clipped to the range of the data, and eps and score that agree with it."""
        x_0 = self.x_0.clamp(low, high)
        return replace(self, eps=(self.x_t - self.alpha * x_0) / self.sigma)


T = TypeVar("T")
Prediction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Conditioning = Callable[[Schedule, Tensor, Tensor, Tensor], Tensor]


def _eps_from_v(v: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return (alpha * v + sigma * x_t) / (alpha**2 + sigma**2)


def _edm_input(sigma_data: float, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """c_in y of y = x_t / alpha, which has noise of sigma / alpha (Karras et al. 2022, Table 1)."""
    return x_t / (alpha * ((sigma / alpha) ** 2 + sigma_data**2).sqrt())


def _eps_from_edm(sigma_data: float, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """eps of x_0 = c_skip y + c_out output (Karras et al. 2022, Eq. 7 and Table 1), y = x_t / alpha."""
    ratio = sigma / alpha
    total = ratio**2 + sigma_data**2
    # (y - x_0) / ratio, with 1 - c_skip = ratio^2 / total: nothing cancels where there is little noise
    return ratio / total * x_t / alpha - sigma_data / total.sqrt() * output


def _time_of_1000(schedule: Schedule, t: Tensor) -> Tensor:
    return schedule.embedded(t) * 1000 / (schedule.embedded(schedule.t_max) + 1)


PREDICTIONS: dict[str, Prediction] = {
    "score": lambda output, x_t, alpha, sigma: -sigma * output,
    "sigma_score": lambda output, x_t, alpha, sigma: -output,
    "eps": lambda output, x_t, alpha, sigma: output,
    "x_0": lambda output, x_t, alpha, sigma: (x_t - alpha * output) / sigma,
    "v": _eps_from_v,
}
"""(network output, x_t, alpha, sigma) -> eps.

Of sigma_score the output is sigma times the score: the score is output / sigma (Song & Ermon 2020, Sec. 3.3).
"""

CONDITIONINGS: dict[str, Conditioning] = {
    "time": lambda schedule, t, alpha, sigma: schedule.embedded(t),
    "time_of_1000": lambda schedule, t, alpha, sigma: _time_of_1000(schedule, t),
    "level": lambda schedule, t, alpha, sigma: schedule.level(t),
    "log_sigma": lambda schedule, t, alpha, sigma: sigma.log(),
    "edm": lambda schedule, t, alpha, sigma: (sigma / alpha).log() / 4,
}
"""(schedule, t, alpha, sigma) -> what the network embeds.

The time; the time as if there were 1000 levels, whatever their number (Nichol & Dhariwal 2021, its code); NCSN's index,
counted from the largest sigma; ln sigma; EDM's c_noise (Karras et al. 2022, Table 1).
"""


class Model(Protocol):
    """What objectives and samplers ask of a model."""

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""


class ScoreModel(nn.Module):
    """A network read as the score of the data perturbed by a schedule.

    Of a network with twice the channels of x_t the second half are variances v, fraction = (v + 1) / 2.

    Args:
        net: `net(x_t, c)` with c of shape (B,) -> output of x_t's shape; called `net(x_t, c, labels)` with labels.
        schedule: the noise levels.
        prediction: what the output means: score, sigma_score, eps, x_0, v, edm, or energy, of which the score is the
            gradient.
        conditioning: what c is: time, time_of_1000, level, log_sigma or edm.
        sigma_data: standard deviation of the data that the edm prediction scales by.

    Attributes:
        classes: of the labels that the network can be told, its own `classes`; None without.
        config: the resolved configuration, of a model that `score_lightning.checkpoint.load` gave.

    Raises:
        ValueError: for an unknown prediction or conditioning.
    """

    config: dict[str, Any]

    def __init__(
        self,
        net: Callable[..., Tensor],
        schedule: Schedule,
        prediction: str = "eps",
        conditioning: str = "time",
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__()
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {sigma_data}")
        self.net, self.schedule = Energy(net) if prediction == "energy" else net, schedule
        predictions: dict[str, Prediction] = {
            **PREDICTIONS,
            "edm": partial(_eps_from_edm, sigma_data),
            "energy": PREDICTIONS["score"],
        }
        self.prediction, self.classes = prediction, getattr(net, "classes", None)
        self._predict = _choose("prediction", prediction, predictions)
        self._input = partial(_edm_input, sigma_data) if prediction == "edm" else None
        self._condition = _choose("conditioning", conditioning, CONDITIONINGS)

    def forward(
        self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Estimate:
        """The estimate for x_t of shape (B, ...) at times t of shape () or (B,).

        Args:
            x_t: (B, ...).
            t: () or (B,).
            labels: int64 (B,), -1 for none.
            augmentation: (B, K), how the data were augmented, for a network that can be told.
        """
        alpha, sigma = self.schedule(t)
        c = self._condition(self.schedule, t, alpha, sigma).expand(len(x_t)).to(x_t.device)
        if c.is_floating_point():
            c = c.to(x_t.dtype)
        alpha, sigma = expand(alpha, x_t), expand(sigma, x_t)
        x = x_t if self._input is None else self._input(x_t, alpha, sigma)
        x = x.to(next(self.parameters(), x_t).dtype)  # another one in Lightning's true-precision modes
        told = {} if augmentation is None else {"augmentation": augmentation}
        output = self.net(x, c, **told) if labels is None else self.net(x, c, labels, **told)
        output, fraction = output.to(x_t.dtype), None
        if output.shape[1] == 2 * x_t.shape[1]:
            output, v = output.chunk(2, 1)
            fraction = (v + 1) / 2
        return Estimate(x_t, alpha, sigma, self._predict(output, x_t, alpha, sigma), fraction)


class GaussianMixtureModel:
    """The exact estimate for data distributed as sum_k w_k N(mu_k, std^2 I), under any schedule.

    Perturbed, the mixture has means alpha mu_k and variance alpha^2 std^2 + sigma^2.

    Args:
        means: (K, D).
        std: standard deviation of every component.
        weights: (K,), positive; normalised here.
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

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate for x_t of shape (B, D) at times t of shape () or (B,)."""
        alpha, sigma, variance = self._kernel(x_t, t)
        mean = self._log_components(x_t, alpha, variance).softmax(1) @ self.means.to(x_t)
        return Estimate(x_t, alpha, sigma, sigma * (x_t - alpha * mean) / variance)

    def log_prob(self, x_t: Tensor, t: Tensor) -> Tensor:
        """ln p(x_t) in nats, of shape (B,)."""
        alpha, _, variance = self._kernel(x_t, t)
        normaliser = x_t.shape[1] / 2 * torch.log(2 * torch.pi * variance)
        return self._log_components(x_t, alpha, variance).logsumexp(1) - normaliser.flatten()

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n exact data points (n, D) and the components (n,) that they come from."""
        k = torch.multinomial(self.weights, n, replacement=True)
        return self.means[k] + self.std * torch.randn(n, self.means.shape[1], dtype=self.means.dtype), k

    def _kernel(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, sigma and the components' variance, of shape (1, 1) or (B, 1), on x_t's device."""
        alpha, sigma = (a.to(x_t).view(-1, 1) for a in self.schedule(t))
        return alpha, sigma, alpha**2 * self.std**2 + sigma**2

    def _log_components(self, x_t: Tensor, alpha: Tensor, variance: Tensor) -> Tensor:
        distance2 = (x_t[:, None] - alpha[..., None] * self.means.to(x_t)).square().sum(-1)
        return self.weights.to(x_t).log() - distance2 / (2 * variance)


def _choose(kind: str, name: str, table: dict[str, T]) -> T:
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(table)}")
    return table[name]
