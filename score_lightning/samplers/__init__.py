"""Samplers: from noise to data along a schedule's times, with any model that estimates the score."""

from score_lightning.samplers.correctors import AnnealedLangevin, Langevin
from score_lightning.samplers.flow import ProbabilityFlow
from score_lightning.samplers.loop import PILOT, Sampler, sample, trajectory
from score_lightning.samplers.predictors import DDIM, Ancestral, EulerMaruyama, Multistep, ReverseDiffusion
from score_lightning.samplers.presets import PRESETS
from score_lightning.samplers.solvers import DPMSolverPP, Heun

__all__ = [
    "DDIM", "PILOT", "PRESETS", "Ancestral", "AnnealedLangevin", "DPMSolverPP", "EulerMaruyama", "Heun", "Langevin",
    "Multistep", "ProbabilityFlow", "ReverseDiffusion", "Sampler", "sample", "trajectory",
]  # fmt: skip
