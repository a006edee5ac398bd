"""Explicit score matching: the Fisher divergence from a score that is known."""

import torch
from torch import Tensor

from score_lightning.models import Model
from score_lightning.objectives.denoising import Weighted, weigh
from score_lightning.perturbation import perturb
from score_lightning.schedules import RandnLike


class Explicit(Weighted):
    """lambda(t) mean |score - score of the exact model|^2 at perturbed data (Hyvärinen 2005, Eq. 2).

    With lambda = 1 its expectation is the Fisher divergence, per dimension and without the factor 1/2.

    Args:
        exact: a model that knows the score, such as GaussianMixtureModel.
        weight: lambda(t), see `weigh`.
    """

    def __init__(self, exact: Model, weight: str = "uniform") -> None:
        super().__init__(weigh(weight))
        self._exact = exact

    def __call__(self, model: Model, x_0: Tensor, t: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B,) losses of x_0 of shape (B, ...) at times t of shape () or (B,)."""
        x_t = perturb(x_0, *model.schedule(t), randn_like(x_0))
        error = model(x_t, t).score - self._exact(x_t, t).score
        return self._weight(model.schedule, t).to(x_0.dtype) * error.square().flatten(1).mean(1)
