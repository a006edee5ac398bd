"""Correctors: Markov chains that leave p(x_t) alone, x <- x + delta score(x, t) + sqrt(2 delta) z.

The NCSN paper's alpha is 2 delta; its code's step_lr is delta.
"""

import math

from torch import Tensor

from score_lightning.models import Model
from score_lightning.schedules import RandnLike


class Langevin:
    """Unadjusted Langevin dynamics (Song & Ermon 2019, Eq. 4) with a step that is constant, or follows from the noise.

    With a signal-to-noise ratio r the step is delta = 2 (r sigma_t)^2. That is the rule 2 (r |z| / |score|)^2 of Song
    et al. 2021a, Alg. 4 and 5, with |z|^2 and |score|^2 at what they are on average, D and D / sigma_t^2: norms of
    single images would make the step depend on its own noise, those of a batch, as in its code, on other images.

    Args:
        step_size: delta, in the data's units squared.
        steps: how many steps at each time that the loop visits.
        snr: r, instead of step_size.

    Raises:
        ValueError: unless either step_size or snr is given and positive, and steps >= 1.
    """

    def __init__(self, step_size: float | None = None, steps: int = 1, snr: float | None = None) -> None:
        given = [value for value in (step_size, snr) if value is not None]
        if len(given) != 1 or not given[0] > 0 or steps < 1:
            raise ValueError(
                f"Langevin needs either step_size > 0 or snr > 0, and steps >= 1; got {step_size}, {snr} and {steps}"
            )
        self.step_size, self.steps, self.snr = step_size, steps, snr

    def step(self, model: Model, x: Tensor, t: Tensor, randn_like: RandnLike) -> Tensor:
        """x after all steps at time t."""
        delta = self.delta(model, t)
        for _ in range(self.steps):
            x = x + delta * model(x, t).score + math.sqrt(2 * delta) * randn_like(x)
        return x

    def delta(self, model: Model, t: Tensor) -> float:
        """The step size at time t."""
        if self.snr is not None:
            return 2 * (self.snr * float(model.schedule(t)[1])) ** 2
        assert self.step_size is not None
        return self.step_size


class AnnealedLangevin(Langevin):
    """Langevin dynamics with delta_t = step_size sigma_t^2 / sigma_min^2 (Song & Ermon 2019, Algorithm 1)."""

    def __init__(self, step_size: float, steps: int) -> None:
        super().__init__(step_size, steps)

    def delta(self, model: Model, t: Tensor) -> float:
        """The step size at time t."""
        sigma_t, sigma_min = (float(model.schedule(time)[1]) for time in (t, model.schedule.t_min))
        return super().delta(model, t) * sigma_t**2 / sigma_min**2
