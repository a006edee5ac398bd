"""Training objectives: (model, x_0, t) -> loss per example, a mean over dimensions."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from score_lightning.models import Model
from score_lightning.objectives.bound import Hybrid, VariationalBound
from score_lightning.objectives.consistency import Consistency
from score_lightning.objectives.denoising import Denoising
from score_lightning.objectives.explicit import Explicit
from score_lightning.objectives.importance import ImportanceSampled
from score_lightning.objectives.learned import LearnedWeights
from score_lightning.objectives.matching import Implicit, Sliced
from score_lightning.objectives.presets import PRESETS
from score_lightning.schedules import RandnLike, Schedule


@runtime_checkable
class Objective(Protocol):
    """What training asks of an objective.

    Attributes:
        stratified: whether the u of a batch are to be stratified, one from each of as many equal shares of [0, 1).
    """

    stratified: bool

    def check(self, schedule: Schedule, dim: int) -> None:
        """Raises a ValueError, with the alternative, when the schedule or the number of dimensions does not suit it."""

    def draw_t(self, schedule: Schedule, u: Tensor) -> Tensor:
        """(B,) times to train at, from u (B,) uniform on [0, 1)."""

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""


__all__ = [
    "PRESETS", "Consistency", "Denoising", "Explicit", "Hybrid", "Implicit", "ImportanceSampled", "LearnedWeights",
    "Objective", "Sliced", "VariationalBound",
]  # fmt: skip
