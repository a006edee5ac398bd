"""Figures of the theory, drawn from models of points."""

from score_lightning.figures.fields import langevin, manifold, objectives, rare, score_field
from score_lightning.figures.processes import forward_reverse, limit, mode_weights, samples
from score_lightning.figures.trained import Trained

FIGURES = {
    "score_field": score_field,
    "manifold": manifold,
    "rare": rare,
    "langevin": langevin,
    "objectives": objectives,
    "mode_weights": mode_weights,
    "forward_reverse": forward_reverse,
    "limit": limit,
    "samples": samples,
}
"""Name -> (trained models, data (N, D)) -> figure."""

__all__ = ["FIGURES", "Trained"]
