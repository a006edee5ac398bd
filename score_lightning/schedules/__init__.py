"""Noise schedules: t -> (alpha_t, sigma_t) of the kernel p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I).

Times grow with noise. Samplers and objectives do not ask whether they are discrete or continuous.
"""

from score_lightning.schedules.continuous import EDM, VE, VP, Continuous, SubVP
from score_lightning.schedules.discrete import Discrete, RandnLike, Spacing, cosine, geometric, linear_beta

Schedule = Discrete | Continuous

__all__ = [
    "EDM", "VE", "VP", "Continuous", "Discrete", "RandnLike", "Schedule", "Spacing", "SubVP", "cosine", "geometric",
    "linear_beta",
]  # fmt: skip
