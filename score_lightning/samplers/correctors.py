"""Correctors: Markov chains that leave p(x_t) alone, x <- x + delta score(x, t) + sqrt(2 delta) z.

The NCSN paper's alpha is 2 delta; its code's step_lr is delta.
"""

import math

from torch import Tensor

from score_lightning.models import Model
from score_lightning.schedules import RandnLike


class Langevin:
    """Unadjusted Langevin dynamics with a constant step (Song & Ermon 2019, Eq. 4).

    Args:
        step_size: delta, in the data's units squared.
        steps: how many steps at each time that the loop visits.

    Raises:
        ValueError: unless step_size > 0 and steps >= 1.
    """

    def __init__(self, step_size: float, steps: int) -> None:
        if not step_size > 0 or steps < 1:
            raise ValueError(f"Langevin needs step_size > 0 and steps >= 1, got {step_size} and {steps}")
        self.step_size, self.steps = step_size, steps

    def step(self, model: Model, x: Tensor, t: Tensor, randn_like: RandnLike) -> Tensor:
        """x after all steps at time t."""
        delta = self.delta(model, t)
        for _ in range(self.steps):
            x = x + delta * model(x, t).score + math.sqrt(2 * delta) * randn_like(x)
        return x

    def delta(self, model: Model, t: Tensor) -> float:  # noqa: ARG002 - one signature for all step rules
        """The step size at time t."""
        return self.step_size


class AnnealedLangevin(Langevin):
    """Langevin dynamics with delta_t = step_size sigma_t^2 / sigma_min^2 (Song & Ermon 2019, Algorithm 1)."""

    def delta(self, model: Model, t: Tensor) -> float:
        """The step size at time t."""
        sigma_t, sigma_min = (float(model.schedule(time)[1]) for time in (t, model.schedule.t_min))
        return self.step_size * sigma_t**2 / sigma_min**2
