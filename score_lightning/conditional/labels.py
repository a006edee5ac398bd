"""Models conditioned on labels, and on how images were augmented."""

from dataclasses import replace
from typing import Protocol, cast

from torch import Tensor

from score_lightning.conditional.base import Wrapper, repeat
from score_lightning.conditional.guidance import NO_GUIDANCE, Strength
from score_lightning.models import Estimate, ScoreModel
from score_lightning.perturbation import expand
from score_lightning.schedules import Schedule

NO_LABEL = -1
"""The label of an image without one: the network then estimates the score of all classes."""


class AugmentationConditioned(Wrapper[ScoreModel]):
    """A model conditioned on how its images were augmented, (B, K) numbers each."""

    def __init__(self, model: ScoreModel, augmentation: Tensor) -> None:
        super().__init__(model)
        self._augmentation = augmentation

    def __call__(
        self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, *, condition: Tensor | None = None
    ) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        return self.model(x_t, t, labels, self._augmentation, condition)

    def repeated(self, n: int, ndim: int) -> "AugmentationConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("AugmentationConditioned", super().repeated(n, ndim))
        twin._augmentation = repeat(self._augmentation, n)
        return twin


class LabeledModel(Protocol):
    """A model that takes labels."""

    schedule: Schedule

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Estimate:
        """The estimate at times t of shape () or (B,), given labels (B,)."""


class LabelConditioned(Wrapper[LabeledModel]):
    """A model conditioned on labels; with guidance w it exaggerates them (Ho & Salimans 2022, Eq. 6),

        eps = (1 + w) eps(x_t, label) - w eps(x_t),

    the score of p(x_t | label) p(label | x_t)^w. Where w is not 0 it takes two evaluations of the network.

    Args:
        model: of a network with labels.
        labels: int64 (B,), -1 for none.
        guidance: w.
    """

    def __init__(self, model: LabeledModel, labels: Tensor, guidance: Strength = NO_GUIDANCE) -> None:
        super().__init__(model)
        self._labels, self._guidance = labels, guidance

    def __call__(self, x_t: Tensor, t: Tensor) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        conditional = self.model(x_t, t, self._labels)
        if self._guidance.weight == 0:  # as in training, where times are on the GPU and nothing waits for them
            return conditional
        w = self._guidance.at(self.schedule, t)
        if not w.any():
            return conditional
        w, plain = expand(w, x_t), self.model(x_t, t, self._labels.new_full(self._labels.shape, NO_LABEL))
        # every reading is affine in the output: this combines score, eps and x_0 alike
        return replace(conditional, output=(1 + w) * conditional.output - w * plain.output)

    def repeated(self, n: int, ndim: int) -> "LabelConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("LabelConditioned", super().repeated(n, ndim))
        twin._labels = repeat(self._labels, n)
        return twin
