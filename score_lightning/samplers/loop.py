"""The one loop: at each time a corrector may mix, then a predictor may step to the next time.

NCSN has a corrector only, DDPM a predictor only, the score SDEs both (Song et al. 2021a, Algorithm 1). The final
denoising reads out E[x_0 | x] at the last time: DDPM's last step, which adds no noise, is just that.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.conditional import Clipped, Wrapper
from score_lightning.models import Model
from score_lightning.samplers.correctors import Langevin
from score_lightning.samplers.step import Step
from score_lightning.schedules import RandnLike, Schedule, Spacing

PILOT = 32
"""Images of a pilot run."""


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


def sample(
    model: Model,
    x: Tensor,
    times: Tensor | None = None,
    predictor: Predictor | None = None,
    corrector: Langevin | None = None,
    denoise: bool = True,
    randn_like: RandnLike = torch.randn_like,
    clip: tuple[float, float] | None = None,
) -> Tensor:
    """Data of x's shape from x at times[0], which `model.schedule.prior` draws: the end of the `trajectory`.

    Args:
        model: what estimates the score.
        x: (B, ...) noise, scaled for times[0].
        times: (steps,) descending; all of the schedule's, down to where sampling ends, when None.
        predictor, corrector: at least one of the two; several times need one that visits them.
        denoise: whether the result is E[x_0 | x] at the last time rather than x there.
        randn_like: draws every normal number.
        clip: range of the data, to which predictors and the final denoising clip the estimated x_0.

    A corrector whose steps follow from the score, with a signal-to-noise ratio, is measured first: by a pilot run of 32
    images, whose seeds are always the same. Where the model is conditioned, they share the conditions of x's images.

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
    corrector: Langevin | None = None,
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
    if len(x) == 0:
        yield x
        return
    times = model.schedule.times(end=model.schedule.sampling_end) if times is None else times.cpu()
    if corrector is not None and corrector.needs_pilot:
        corrector = measured(corrector, _for_pilot(model, x), *_pilot_start(model, x, times), times, predictor, clip)
    clipped = model if clip is None else Clipped(model, *clip)
    step = predictor.start(times) if predictor is not None else Step()
    for t, s in zip(times, [*times[1:], None], strict=True):  # no time follows the last
        yield x
        if corrector is not None:
            x = corrector.step(model, x, t, randn_like, s)
        if predictor is not None and s is not None:
            x = step(clipped, x, t, s, randn_like)
    yield step.denoise(clipped, x, times[-1], randn_like) if denoise else x


def measured(
    corrector: Langevin,
    model: Model,
    x: Tensor,
    randn_like: RandnLike,
    times: Tensor,
    predictor: Predictor | None = None,
    clip: tuple[float, float] | None = None,
    progress: bool = False,
) -> Langevin:
    """The corrector with steps by the norms of scores in a pilot run from x; other arguments as of `sample`."""
    pilot = corrector.pilot()
    states = trajectory(model, x, times, predictor, pilot, False, randn_like, clip)
    deque(tqdm(states, "pilot run", len(times) + 1, disable=None if progress else True, leave=False), maxlen=0)
    assert pilot.norms is not None
    return corrector.with_norms(pilot.norms)


def _for_pilot(model: Model, x: Tensor) -> Model:
    """The model for the images of a pilot run instead of x's, whose conditions they share in turn."""
    return model.repeated(PILOT, x.ndim) if isinstance(model, Wrapper) else model


def _pilot_start(model: Model, x: Tensor, times: Tensor) -> tuple[Tensor, RandnLike]:
    """(where the pilot run starts, what draws its normal numbers), on x's device and of its dtype."""
    generator = torch.Generator().manual_seed(0)

    def randn_like(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)

    shape = (PILOT, *x.shape[1:])
    return model.schedule.prior(shape, randn_like, times[0], dtype=x.dtype, device=x.device), randn_like


@dataclass(frozen=True)
class Sampler:
    """A sampler with its settings: everything of `sample` but the model, the start and the randomness.

    Args:
        steps: number of times to visit, all of the schedule's when None.
        spacing: how they are spaced (see the schedule's `times`).
        end: the last time, of continuous ones; the schedule's `sampling_end` when None.
        strength: the share of the times that it visits, the last ones (Meng et al. 2022); all at 1.

    Raises:
        ValueError: unless 0 < strength <= 1.
    """

    predictor: Predictor | None = None
    corrector: Langevin | None = None
    steps: int | None = None
    spacing: Spacing = "uniform"
    denoise: bool = True
    clip: tuple[float, float] | None = None
    end: float | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"the strength of a sampler lies above 0 and at most at 1, got {self.strength}")

    def times(self, schedule: Schedule) -> Tensor:
        """Descending times that it visits: the last ceil(strength * steps) of the schedule's."""
        times = schedule.times(self.steps, self.spacing, schedule.sampling_end if self.end is None else self.end)
        left = math.ceil(round(self.strength * len(times), 9))  # 0.1 * 30 is 3.0000000000000004
        return times[len(times) - left :]

    def __call__(
        self,
        model: Model,
        x: Tensor,
        randn_like: RandnLike = torch.randn_like,
        progress: bool = False,
        observe: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Data of x's shape from noise x, which `model.schedule.prior` draws for the first of the `times`.

        Args:
            model, x, randn_like: as of `sample`.
            progress: whether to show a bar, where there is a terminal.
            observe: called with each state of the `trajectory`.
        """
        times = self.times(model.schedule)
        states = trajectory(model, x, times, self.predictor, self.corrector, self.denoise, randn_like, self.clip)
        hidden = None if progress else True  # with progress, shown where there is a terminal
        for x in tqdm(states, desc="sampling", total=len(times) + 1, disable=hidden, leave=False):
            if observe is not None:
                observe(x)
        return x

    @property
    def needs_pilot(self) -> bool:
        """Whether its corrector's steps follow from scores that were not measured yet."""
        return self.corrector is not None and self.corrector.needs_pilot

    def measured(self, model: Model, x: Tensor, randn_like: RandnLike, progress: bool = False) -> "Sampler":
        """The same with a corrector measured on a pilot run of this model from x."""
        if self.corrector is None or not self.corrector.needs_pilot:
            return self
        times = self.times(model.schedule)
        return replace(
            self, corrector=measured(self.corrector, model, x, randn_like, times, self.predictor, self.clip, progress)
        )

    def evaluations(self, schedule: Schedule) -> int | None:
        """Number of network evaluations per image; None where it depends on the image.

        Those of a pilot run, where there is one, are as many for each of its images.

        Raises:
            ValueError: when the sampler makes no sense with the schedule.
        """
        times = len(self.times(schedule))
        if self.predictor is not None:
            self.predictor.check(schedule)
        each = 0 if self.predictor is None else self.predictor.evaluations
        if each is None:
            return None
        corrected = times * self.corrector.steps if self.corrector is not None else 0
        return (times - 1) * each + corrected + self.denoise
