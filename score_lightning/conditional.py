"""Models of conditional distributions: given a label, or given a part of the data.

Each takes the place of a model in any sampler and any objective.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from score_lightning.models import Estimate, Model, ScoreModel
from score_lightning.schedules import Schedule

NO_LABEL = -1


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


class AugmentationConditioned(Wrapper[ScoreModel]):
    """A model conditioned on how its images were augmented, (B, K) numbers each."""

    def __init__(self, model: ScoreModel, augmentation: Tensor) -> None:
        super().__init__(model)
        self._augmentation = augmentation

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        return self.model(x_t, t, labels, self._augmentation)

    def repeated(self, n: int, ndim: int) -> "AugmentationConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("AugmentationConditioned", super().repeated(n, ndim))
        twin._augmentation = _repeat(self._augmentation, n)
        return twin


class LabeledModel(Protocol):
    """A model that takes labels."""

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Estimate:
        """The estimate at times t of shape () or (B,), given labels (B,)."""


class LabelConditioned(Wrapper[LabeledModel]):
    """A model conditioned on labels; with guidance w it exaggerates them (Ho & Salimans 2022, Eq. 6),

        eps = (1 + w) eps(x_t, label) - w eps(x_t),

    the score of p(x_t | label) p(label | x_t)^w. Guidance takes two evaluations of the network.

    Args:
        model: of a network with labels.
        labels: int64 (B,), -1 for none.
        guidance: w; 0 is none.
    """

    def __init__(self, model: LabeledModel, labels: Tensor, guidance: float = 0.0) -> None:
        super().__init__(model)
        self._labels, self._guidance = labels, guidance

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        conditional = self.model(x_t, t, self._labels)
        if self._guidance == 0:
            return conditional
        w, plain = self._guidance, self.model(x_t, t, self._labels.new_full(self._labels.shape, NO_LABEL))
        # every reading is affine in the output: this combines score, eps and x_0 alike
        return replace(conditional, output=(1 + w) * conditional.output - w * plain.output)

    def repeated(self, n: int, ndim: int) -> "LabelConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("LabelConditioned", super().repeated(n, ndim))
        twin._labels = _repeat(self._labels, n)
        return twin


def condition(model: ScoreModel, labels: Tensor | None, augmentation: Tensor | None = None) -> Model:
    """The model conditioned on labels (B,) if it has classes, and on how images were augmented (B, K) if they were."""
    augmented = model if augmentation is None else AugmentationConditioned(model, augmentation)
    return augmented if labels is None or model.classes is None else LabelConditioned(augmented, labels)


class Clipped(Wrapper[Model]):
    """A model whose estimates of x_0 are clipped to a range."""

    def __init__(self, model: Model, low: float, high: float) -> None:
        super().__init__(model)
        self._range = (low, high)

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The clipped estimate."""
        return self.model(x_t, t).clip(*self._range)


@dataclass(frozen=True)
class Measurement:
    """A part of the data that is known: y = P x_0, P an orthogonal projection (P P = P = P^T).

    Args:
        project: P, from and to (B, ...).
        y: (...) or (B, ...), what is known; P y = y.
    """

    project: Callable[[Tensor], Tensor]
    y: Tensor

    def impose(self, x_0: Tensor) -> Tensor:
        """x_0 (B, ...) with the part that is known put in."""
        return x_0 - self.project(x_0) + self.y.to(x_0)

    def perturb(self, x: Tensor, alpha: Tensor, sigma: Tensor, eps: Tensor) -> Tensor:
        """x (B, ...) with that part of a perturbed x_0 put in; alpha and sigma of shape ()."""
        return x - self.project(x) + alpha * self.y.to(x) + sigma * self.project(eps)


class MeasurementConditioned(Wrapper[Model]):
    """A model given a part of the data: inpainting, colorization, upsampling with an unconditional model.

    The estimate of x_0 has the part that is known put in. So P x_t has its exact score given y, that of
    N(alpha y, sigma^2 I), and any sampler draws it from its exact distribution; the rest has the model's score of the
    whole x_t. It is Song et al. 2021a, App. I.2-3 (there the sampler draws that part anew at each step). The rest is
    exact where a corrector mixes at each level; a predictor alone sees x_t on the way only.

    Args:
        model: unconditional, or conditioned on labels.
        measurement: what is known.
    """

    def __init__(self, model: Model, measurement: Measurement) -> None:
        super().__init__(model)
        self._measurement = measurement

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        estimate = self.model(x_t, t)
        return estimate.with_x_0(self._measurement.impose(estimate.x_0))

    def repeated(self, n: int, ndim: int) -> "MeasurementConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("MeasurementConditioned", super().repeated(n, ndim))
        y = self._measurement.y
        twin._measurement = replace(self._measurement, y=_repeat(y, n) if y.ndim == ndim else y)
        return twin


def _repeat(rows: Tensor, n: int) -> Tensor:
    """(n, ...): rows (B, ...) in turn."""
    return rows[torch.arange(n, device=rows.device) % len(rows)]


def inpainting(image: Tensor, known: Tensor) -> Measurement:
    """The pixels of an image (C, H, W) where `known`, bool (H, W).

    Raises:
        ValueError: when the mask has another size, or leaves nothing to paint, or nothing known.
    """
    if known.shape != image.shape[1:]:
        raise ValueError(f"the mask has {tuple(known.shape)} pixels, the image {tuple(image.shape[1:])}")
    if known.all() or not known.any():
        raise ValueError("the mask must mark a part of the image to paint: some pixels, and not all")
    mask = known.to(image)
    return Measurement(lambda x: x * mask.to(x), image * mask)


def colorization(image: Tensor) -> Measurement:
    """The mean of the channels of an image (C, H, W), or (1, H, W) of a gray one."""
    return Measurement(lambda x: x.mean(1, keepdim=True).expand_as(x), image.mean(0, keepdim=True))


def upsampling(image: Tensor, factor: int) -> Measurement:
    """The means of squares of factor x factor pixels, those of a small image (C, h, w).

    Raises:
        ValueError: when the factor is below 2.
    """
    if factor < 2:
        raise ValueError(f"upsampling needs a factor of 2 or more, got {factor}")

    def spread(small: Tensor) -> Tensor:
        return small.repeat_interleave(factor, -1).repeat_interleave(factor, -2)

    return Measurement(lambda x: spread(F.avg_pool2d(x, factor)), spread(image))
