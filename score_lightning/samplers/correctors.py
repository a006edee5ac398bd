"""Correctors: Markov chains that leave p(x_t) alone, x <- x + delta score(x, t) + sqrt(2 delta) z.

The NCSN paper's alpha is 2 delta; its code's step_lr is delta.
"""

import copy
import math

from torch import Tensor

from score_lightning.models import Model
from score_lightning.schedules import RandnLike, Schedule

Norms = dict[tuple[float, int], float]
"""(time, number of the corrector's step there) -> mean norm of the scores."""

LEAST = 0.1  # of |z| / sigma_max, what the norm of a score is taken for at least


class Langevin:
    """Unadjusted Langevin dynamics (Song & Ermon 2019, Eq. 4) with a step that is constant, or follows from the score.

    With a signal-to-noise ratio r the step is delta = 2 a_t (r |z| / |score|)^2, a_t = (alpha_t / alpha_s)^2 with s the
    next time, and alpha_s = 1 after the last (Song et al. 2021a, Alg. 4 and 5). |z| is its expectation. |score| is the
    mean norm over the images of a pilot run, which the loop makes with its own seeds (see `sample`): the norm of
    each image by itself would bias the chain where dimensions are few, and the mean over a batch, as in the published
    code, would make an image depend on those beside it. |score| is taken for at least a tenth of |z| / sigma_max: steps
    would be infinite where a network has learned nothing yet.

    Args:
        step_size: delta, in the data's units squared.
        steps: how many steps at each time that the loop visits.
        snr: r, instead of step_size.

    Attributes:
        norms: mean norms of the scores, of a pilot run; None before one.

    Raises:
        ValueError: unless either step_size or snr is given and positive, and steps >= 1.
    """

    norms: Norms | None = None

    def __init__(self, step_size: float | None = None, steps: int = 1, snr: float | None = None) -> None:
        given = [value for value in (step_size, snr) if value is not None]
        if len(given) != 1 or not given[0] > 0 or steps < 1:
            raise ValueError(
                f"Langevin needs either step_size > 0 or snr > 0, and steps >= 1; got {step_size}, {snr} and {steps}"
            )
        self.step_size, self.steps, self.snr = step_size, steps, snr

    @property
    def needs_pilot(self) -> bool:
        """Whether its steps follow from norms of scores that were not measured yet."""
        return self.snr is not None and self.norms is None

    def pilot(self) -> "Pilot":
        """What measures the norms, with its own steps."""
        return Pilot(self.step_size, self.steps, self.snr)

    def with_norms(self, norms: Norms) -> "Langevin":
        """The same after a pilot run that measured these norms."""
        measured = copy.copy(self)
        measured.norms = norms
        return measured

    def step(self, model: Model, x: Tensor, t: Tensor, randn_like: RandnLike, s: Tensor | None = None) -> Tensor:
        """x (B, ...) after all steps at time t; s is the next time, None after the last."""
        for number in range(self.steps):
            score = model(x, t).score
            delta = self._delta(model.schedule, t, s, number, score)
            x = x + delta * score + math.sqrt(2 * delta) * randn_like(x)
        return x

    def _delta(self, schedule: Schedule, t: Tensor, s: Tensor | None, number: int, score: Tensor) -> float:
        """The size of one of the steps at time t."""
        if self.snr is None:
            return self.delta(schedule, t)
        norm_z = expected_norm(score.shape[1:].numel())
        norm = max(self._norm(t, number, score), LEAST * norm_z / float(schedule(schedule.t_max)[1]))
        alpha_t, alpha_s = float(schedule(t)[0]), 1.0 if s is None else float(schedule(s)[0])
        return 2 * (alpha_t / alpha_s * self.snr * norm_z / norm) ** 2

    def _norm(self, t: Tensor, number: int, score: Tensor) -> float:  # noqa: ARG002 - the pilot's measures it
        if self.norms is None or (float(t), number) not in self.norms:
            raise ValueError(f"the norm of the score at time {float(t):g} was not measured: sample with `sample`")
        return self.norms[float(t), number]

    def delta(self, schedule: Schedule, t: Tensor) -> float:  # noqa: ARG002 - where it depends on them
        """The step size at time t, where it does not follow from the score."""
        assert self.step_size is not None
        return self.step_size


class Pilot(Langevin):
    """The published rule on a batch: steps by the mean norm of its scores, which are kept."""

    def __init__(self, step_size: float | None, steps: int, snr: float | None) -> None:
        super().__init__(step_size, steps, snr)
        self.norms = {}

    def _norm(self, t: Tensor, number: int, score: Tensor) -> float:
        assert self.norms is not None
        norm = self.norms[float(t), number] = float(score.flatten(1).norm(dim=1).mean())
        return norm


class AnnealedLangevin(Langevin):
    """Langevin dynamics with delta_t = step_size sigma_t^2 / sigma_min^2 (Song & Ermon 2019, Algorithm 1)."""

    def __init__(self, step_size: float, steps: int) -> None:
        super().__init__(step_size, steps)

    def delta(self, schedule: Schedule, t: Tensor) -> float:
        """The step size at time t."""
        sigma_t, sigma_min = (float(schedule(time)[1]) for time in (t, schedule.t_min))
        return super().delta(schedule, t) * sigma_t**2 / sigma_min**2


def expected_norm(dim: int) -> float:
    """E |z| of standard normal z (dim,): sqrt(2) Gamma((dim + 1) / 2) / Gamma(dim / 2)."""
    return math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))
