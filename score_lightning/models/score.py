"""A score model: network, schedule and prediction joined.

A conditioning turns (t, sigma) into what the network embeds; a prediction reads the output (see `estimate`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from score_lightning.models.conditioning import CONDITIONINGS
from score_lightning.models.estimate import PREDICTIONS, Estimate, Prediction, edm
from score_lightning.models.preconditioning import precondition
from score_lightning.networks.energy import Energy
from score_lightning.perturbation import expand
from score_lightning.schedules import PURE_NOISE, Schedule

T = TypeVar("T")


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
        prediction: what the output means: score, sigma_score, eps, x_0, v, velocity, edm, or energy, of which the score
            is the gradient.
        conditioning: what c is: time, time_of_1000, level, log_sigma or edm.
        sigma_data: standard deviation of the data that the edm prediction scales by.

    Attributes:
        classes: number of classes that the network can be conditioned on, its `classes`; None without labels.
        condition_channels: of a picture that it is conditioned on, its `condition_channels`; 0 without.
        config: the resolved configuration, of a model that `score_lightning.checkpoint.load` gave.

    Raises:
        ValueError: for an unknown prediction or conditioning, or one that is infinite at the highest noise level.
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
        predictions = {**PREDICTIONS, "edm": edm(sigma_data), "energy": PREDICTIONS["score"]}
        self.prediction, self.classes = prediction, getattr(net, "classes", None)
        self.condition_channels = int(getattr(net, "condition_channels", 0))
        self._prediction: Prediction = _choose("prediction", prediction, predictions)
        self._sigma_data = sigma_data if prediction == "edm" else None
        self._condition = _choose("conditioning", conditioning, CONDITIONINGS)
        self._check_most_noise(conditioning)

    def _check_most_noise(self, conditioning: str) -> None:
        t = self.schedule.t_max
        alpha, sigma = self.schedule(t)
        if not Estimate(sigma, alpha, sigma, sigma.new_ones(()), self._prediction).x_0.isfinite():
            raise ValueError(
                f"prediction {self.prediction} divides by alpha, and {PURE_NOISE}: take velocity, v or x_0"
            )
        if self.schedule.ends_in_noise and not self._condition(self.schedule, t, alpha, sigma).isfinite():
            raise ValueError(f"conditioning {conditioning} is infinite where {PURE_NOISE}: take time or log_sigma")

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        labels: Tensor | None = None,
        augmentation: Tensor | None = None,
        condition: Tensor | None = None,
    ) -> Estimate:
        """The estimate for x_t of shape (B, ...) at times t of shape () or (B,).

        Args:
            x_t: (B, ...).
            t: () or (B,).
            labels: int64 (B,), -1 for none.
            augmentation: (B, K), how the data were augmented, for a network that is conditioned on it.
            condition: (B, K, H, W), a picture beside x_t, which is not scaled with it; zeros when None.

        Raises:
            ValueError: when the picture is not of the shape that the network takes.
        """
        alpha, sigma = self.schedule(t)
        c = self._condition(self.schedule, t, alpha, sigma).expand(len(x_t)).to(x_t.device)
        if c.is_floating_point():
            c = c.to(x_t.dtype)
        alpha, sigma = expand(alpha, x_t), expand(sigma, x_t)
        x = x_t if self._sigma_data is None else _edm_input(self._sigma_data, x_t, alpha, sigma)
        x = x if self.condition_channels == 0 and condition is None else self._beside(x, condition)
        x = x.to(next(self.parameters(), x_t).dtype)  # another one in Lightning's true-precision modes
        conditions = {} if augmentation is None else {"augmentation": augmentation}
        output = self.net(x, c, **conditions) if labels is None else self.net(x, c, labels, **conditions)
        output, fraction = output.to(x_t.dtype), None
        if output.shape[1] == 2 * x_t.shape[1]:
            output, v = output.chunk(2, 1)
            fraction = (v + 1) / 2
        return Estimate(x_t, alpha, sigma, output, self._prediction, fraction)

    def _beside(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """x (B, C, H, W) and the condition as one input (B, C + K, H, W)."""
        shape = (len(x), self.condition_channels, *x.shape[2:])
        condition = x.new_zeros(shape) if condition is None else condition.to(x)
        if condition.shape != shape:
            raise ValueError(f"this network takes conditions of shape {shape}, got {tuple(condition.shape)}")
        return torch.cat([x, condition], 1)


def _edm_input(sigma_data: float, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """c_in y, where y = x_t / alpha has noise of sigma / alpha (Karras et al. 2022, Eq. 7)."""
    return precondition(sigma / alpha, sigma_data).c_in * (x_t / alpha)


def _choose(kind: str, name: str, table: Mapping[str, T]) -> T:
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; choose one of {', '.join(table)}")
    return table[name]
