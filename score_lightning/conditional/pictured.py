"""Models conditioned on a picture, which joins x_t at the network's input (Saharia et al. 2022a, 2022b).

A network that is trained on eps with the picture c beside x_t learns the score of p(x_t | c): the loss is least at
E[eps | x_t, c]. The picture is not scaled with the noise. Where it is dropped, all its channels are 0.
"""

from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from torch import Tensor

from score_lightning.conditional.base import Wrapper, repeat
from score_lightning.conditional.guidance import NO_GUIDANCE, Strength
from score_lightning.conditional.labels import AugmentationConditioned, LabelConditioned
from score_lightning.conditional.pictures import Condition
from score_lightning.models import Estimate, Model, ScoreModel
from score_lightning.perturbation import expand
from score_lightning.schedules import Schedule


@dataclass(frozen=True)
class Given:
    """What a batch of images is given: a condition, and its pictures as the network takes them, (B, K, H, W)."""

    condition: Condition
    picture: Tensor

    def without(self, dropped: Tensor) -> "Given":
        """The same with nothing known of the images that are dropped, bool (B,)."""
        return replace(self, picture=torch.where(dropped[:, None, None, None], 0.0, self.picture))


class PicturedModel(Protocol):
    """A model that takes labels and pictures."""

    schedule: Schedule

    def __call__(
        self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, *, condition: Tensor | None = None
    ) -> Estimate:
        """The estimate at times t of shape () or (B,), given labels (B,) and pictures (B, K, H, W)."""


class PictureConditioned(Wrapper[PicturedModel]):
    """A model conditioned on pictures; with guidance w it exaggerates what they say (Ho & Salimans 2022, Eq. 6),

        eps = (1 + w) eps(x_t, picture, label) - w eps(x_t),

    away from an estimate with neither picture nor label: training drops the label with the picture.

    Args:
        model: of a network with further channels.
        given: the pictures.
        guidance: w.
    """

    def __init__(self, model: PicturedModel, given: Given, guidance: Strength = NO_GUIDANCE) -> None:
        super().__init__(model)
        self._given, self._guidance = given, guidance

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Estimate:
        """The estimate at times t of shape () or (B,), given labels (B,)."""
        return self._given.condition.impose(self._guided(x_t, t, labels), self._given.picture)

    def _guided(self, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Estimate:
        conditional = self.model(x_t, t, labels, condition=self._given.picture)
        if self._guidance.weight == 0:
            return conditional
        w = self._guidance.at(self.schedule, t)
        if not w.any():
            return conditional
        w, plain = expand(w, x_t), self.model(x_t, t)
        return replace(conditional, output=(1 + w) * conditional.output - w * plain.output)

    def repeated(self, n: int, ndim: int) -> "PictureConditioned":
        """The same for n images, see `Wrapper`."""
        twin = cast("PictureConditioned", super().repeated(n, ndim))
        twin._given = replace(self._given, picture=repeat(self._given.picture, n))
        return twin


def condition(
    model: ScoreModel, labels: Tensor | None, augmentation: Tensor | None = None, given: Given | None = None
) -> Model:
    """The model conditioned on labels (B,) if it has classes, on how images were augmented (B, K) and on pictures."""
    augmented = model if augmentation is None else AugmentationConditioned(model, augmentation)
    pictured = augmented if given is None else PictureConditioned(augmented, given)
    return pictured if labels is None or model.classes is None else LabelConditioned(pictured, labels)
