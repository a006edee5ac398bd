"""What wraps a model: the base of all, and the estimate clipped to the range of the data; evidence of images."""

import copy
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor

from score_lightning.models import Estimate, Model
from score_lightning.schedules import Schedule

M = TypeVar("M", bound=Model)


class Wrapper(Generic[M]):
    """A model that changes what another one estimates, under the schedule of that one.

    A copy of it with another schedule wraps a copy of the model with that schedule.
    """

    def __init__(self, model: M) -> None:
        self.model = model

    @property
    def schedule(self) -> Schedule:
        """That of the model."""
        return self.model.schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._set_schedule(schedule)

    def _set_schedule(self, schedule: Schedule) -> None:
        self.model = copy.copy(self.model)
        self.model.schedule = schedule

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        raise NotImplementedError

    def repeated(self, n: int, ndim: int) -> "Wrapper[M]":
        """The same for n images x of `ndim` dimensions, which share the conditions of these in turn."""
        twin = copy.copy(self)
        if isinstance(self.model, Wrapper):
            twin.model = cast(M, self.model.repeated(n, ndim))
        return twin


class Clipped(Wrapper[Model]):
    """A model whose estimates of x_0 are clipped to a range."""

    def __init__(self, model: Model, low: float, high: float) -> None:
        super().__init__(model)
        self._range = (low, high)

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The clipped estimate."""
        return self.model(x_t, t).clip(*self._range)


class Evidence(Protocol):
    """What images are drawn given: a part of each, a noisy observation, or a picture to start from."""

    def wrap(self, model: Model) -> Model:
        """The model given it."""

    def perturb(self, x: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
        """Where sampling starts instead of x (B, ...), with standard normal eps; alpha and sigma of shape ()."""

    def impose(self, x_0: Tensor) -> Tensor:
        """The sampled x_0 (B, ...) with what is known exactly put in."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises a ValueError when it does not fit images of this shape."""

    def fingerprint(self, shape: tuple[int, ...]) -> list[bytes]:
        """All that images of this shape are a function of here."""


def probe(shape: tuple[int, ...]) -> Tensor:
    """(1, *shape): always the same normal numbers, of which no two linear operators make the same."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def repeat(rows: Tensor, n: int) -> Tensor:
    """(n, ...): rows (B, ...) in turn."""
    return rows[torch.arange(n, device=rows.device) % len(rows)]
