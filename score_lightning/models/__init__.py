"""Score models: a network, a schedule and a prediction joined; exact models of Gaussian data; what they return."""

from score_lightning.models.conditioning import CONDITIONINGS
from score_lightning.models.estimate import PREDICTIONS, Estimate, Prediction
from score_lightning.models.gaussian import GaussianModel
from score_lightning.models.mixture import GaussianMixtureModel
from score_lightning.models.score import Model, ScoreModel

__all__ = [
    "CONDITIONINGS", "PREDICTIONS", "Estimate", "GaussianMixtureModel", "GaussianModel", "Model", "Prediction",
    "ScoreModel",
]  # fmt: skip
