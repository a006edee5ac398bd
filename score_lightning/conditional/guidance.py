"""Guidance: a model's estimate, exaggerated in its difference from that of a worse model."""

import copy
import math
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from score_lightning.conditional.base import Wrapper
from score_lightning.models import Estimate, Model
from score_lightning.perturbation import expand
from score_lightning.schedules import Schedule


@dataclass(frozen=True)
class Strength:
    """The weight w of guidance, in an interval of noise levels n = sigma / alpha (Kynkäänniemi et al. 2024).

    Args:
        weight: w inside the interval; 0 is none.
        low, high: its ends, low <= n <= high.

    Raises:
        ValueError: for an empty interval.
    """

    weight: float = 0.0
    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"an interval of noise levels needs 0 <= low < high, got {self.low:g} and {self.high:g}")

    @property
    def everywhere(self) -> bool:
        """Whether the interval has all noise levels."""
        return self.low == 0 and self.high == math.inf

    def at(self, schedule: Schedule, t: Tensor) -> Tensor:
        """w at times t, 0 outside of the interval; float64, of t's shape."""
        n = schedule.ratio(t)
        return self.weight * ((self.low <= n) & (n <= self.high)).to(n.dtype)


NO_GUIDANCE = Strength()
"""The weight 0."""


class Guided(Wrapper[Model]):
    """Autoguidance (Karras et al. 2024a): a model guided away from a worse one of the same data.

        x_0 = (1 + w) x_0(x_t) - w x_0'(x_t),

    and with it score and eps. Where w is 0, the guide is not evaluated.

    Args:
        model: the model.
        guide: the worse one, under the same schedule, conditioned alike.
        strength: w.
    """

    def __init__(self, model: Model, guide: Model, strength: Strength) -> None:
        super().__init__(model)
        self._guide, self._strength = guide, strength

    def _set_schedule(self, schedule: Schedule) -> None:
        super()._set_schedule(schedule)
        self._guide = copy.copy(self._guide)
        self._guide.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        estimate, w = self.model(x_t, t), self._strength.at(self.schedule, t)
        if not w.any():
            return estimate
        w = expand(w, x_t)
        return estimate.with_x_0((1 + w) * estimate.x_0 - w * self._guide(x_t, t).x_0)

    def repeated(self, n: int, ndim: int) -> "Guided":
        """The same for n images, see `Wrapper`."""
        twin = cast("Guided", super().repeated(n, ndim))
        if isinstance(self._guide, Wrapper):
            twin._guide = self._guide.repeated(n, ndim)
        return twin
