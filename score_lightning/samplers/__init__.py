"""Samplers: from noise to data along a schedule's times, with any model that estimates the score."""

from score_lightning.samplers.correctors import AnnealedLangevin, Langevin
from score_lightning.samplers.loop import Sampler, sample
from score_lightning.samplers.predictors import DDIM, Ancestral

__all__ = ["DDIM", "Ancestral", "AnnealedLangevin", "Langevin", "Sampler", "sample"]
