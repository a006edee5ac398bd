"""The one loop: at each time a corrector may mix, then a predictor may step to the next time.

NCSN has a corrector only, DDPM a predictor only, the score SDEs both (Song et al. 2021a, Algorithm 1). The final
denoising reads out E[x_0 | x] at the last time: DDPM's last step, which adds no noise, is just that.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.conditional import Clipped
from score_lightning.models import Model
from score_lightning.schedules import RandnLike, Schedule, Spacing


class Step(Protocol):
    """One step of a predictor."""

    def __call__(self, model: Model, x: Tensor, t: Tensor, s: Tensor, randn_like: RandnLike) -> Tensor:
        """x_s from x at t."""


class Predictor(Protocol):
    """What steps from time t to an earlier s.

    Attributes:
        evaluations: of the model, in each step; None where they depend on x.
    """

    @property
    def evaluations(self) -> int | None:
        """See above."""

    def check(self, schedule: Schedule) -> None:
        """Raises a ValueError, with the alternative, when it makes no sense with the schedule."""

    def start(self, times: Tensor) -> Step:
        """Its step along these times, with the memory of one trajectory where it needs one."""


class Corrector(Protocol):
    """What moves x at time t."""

    steps: int

    def step(self, model: Model, x: Tensor, t: Tensor, randn_like: RandnLike) -> Tensor:
        """x, still at time t."""


def sample(
    model: Model,
    x: Tensor,
    times: Tensor | None = None,
    predictor: Predictor | None = None,
    corrector: Corrector | None = None,
    denoise: bool = True,
    randn_like: RandnLike = torch.randn_like,
    clip: tuple[float, float] | None = None,
) -> Tensor:
    """Data of x's shape from x at times[0], which `model.schedule.prior` draws: the end of the `trajectory`.

    Args:
        model: what estimates the score.
        x: (B, ...) noise, scaled for times[0].
        times: (steps,) descending; all of the schedule's when None.
        predictor, corrector: at least one of the two; several times need one that visits them.
        denoise: whether the result is E[x_0 | x] at the last time rather than x there.
        randn_like: draws every normal number.
        clip: range of the data, to which predictors and the final denoising clip the estimated x_0.

    Raises:
        ValueError: when neither a predictor nor a corrector is given.
    """
    return deque(trajectory(model, x, times, predictor, corrector, denoise, randn_like, clip), maxlen=1).pop()


@torch.no_grad()
def trajectory(
    model: Model,
    x: Tensor,
    times: Tensor | None = None,
    predictor: Predictor | None = None,
    corrector: Corrector | None = None,
    denoise: bool = True,
    randn_like: RandnLike = torch.randn_like,
    clip: tuple[float, float] | None = None,
) -> Iterator[Tensor]:
    """x at each of the times, as it comes there, and last the result; arguments as of `sample`.

    Raises:
        ValueError: when neither a predictor nor a corrector is given.
    """
    if predictor is None and corrector is None:
        raise ValueError("sample needs a predictor, a corrector or both; got neither")
    times = model.schedule.times() if times is None else times.cpu()
    clipped = model if clip is None else Clipped(model, *clip)
    step = predictor.start(times) if predictor is not None else None
    for t, s in zip(times, [*times[1:], None], strict=True):  # no time follows the last
        yield x
        if corrector is not None:
            x = corrector.step(model, x, t, randn_like)
        if step is not None and s is not None:
            x = step(clipped, x, t, s, randn_like)
    yield clipped(x, times[-1]).x_0 if denoise else x


@dataclass(frozen=True)
class Sampler:
    """A sampler with its settings: everything of `sample` but the model, the start and the randomness.

    Args:
        steps: number of times to visit, all of the schedule's when None.
        spacing: how they are spaced (see the schedule's `times`).
    """

    predictor: Predictor | None = None
    corrector: Corrector | None = None
    steps: int | None = None
    spacing: Spacing = "uniform"
    denoise: bool = True
    clip: tuple[float, float] | None = None

    def __call__(
        self,
        model: Model,
        x: Tensor,
        randn_like: RandnLike = torch.randn_like,
        progress: bool = False,
        observe: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Data of x's shape from noise x, which `model.schedule.prior` draws.

        Args:
            model, x, randn_like: as of `sample`.
            progress: whether to show a bar, where there is a terminal.
            observe: called with each state of the `trajectory`.
        """
        times = model.schedule.times(self.steps, self.spacing)
        settings = (self.predictor, self.corrector, self.denoise, randn_like, self.clip)
        states = trajectory(model, x, times, *settings)
        hidden = None if progress else True  # with progress, shown where there is a terminal
        for x in tqdm(states, desc="sampling", total=len(times) + 1, disable=hidden, leave=False):
            if observe is not None:
                observe(x)
        return x

    def evaluations(self, schedule: Schedule) -> int | None:
        """Number of network evaluations per image; None where it depends on the image.

        Raises:
            ValueError: when the sampler makes no sense with the schedule.
        """
        times = len(schedule.times(self.steps, self.spacing))
        if self.predictor is not None:
            self.predictor.check(schedule)
        each = 0 if self.predictor is None else self.predictor.evaluations
        if each is None:
            return None
        corrected = times * self.corrector.steps if self.corrector is not None else 0
        return (times - 1) * each + corrected + self.denoise
