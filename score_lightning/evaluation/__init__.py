"""Evaluation of generated images: features, metrics and what is written of them."""

from score_lightning.evaluation.frechet import frechet_distance

__all__ = ["frechet_distance"]
