"""Noise schedules: t -> (alpha_t, sigma_t) of the kernel p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I).

Times grow with noise. Samplers and objectives do not ask whether they are discrete or continuous.
"""

from score_lightning.schedules.base import PURE_NOISE, RandnLike, Schedule, Spacing
from score_lightning.schedules.continuous import EDM, VE, VP, Continuous, SubVP
from score_lightning.schedules.discrete import Discrete, cosine, geometric, linear_beta
from score_lightning.schedules.limit import Limit
from score_lightning.schedules.rectified_flow import RectifiedFlow

__all__ = [
    "EDM", "PURE_NOISE", "VE", "VP", "Continuous", "Discrete", "Limit", "RandnLike", "RectifiedFlow", "Schedule",
    "Spacing", "SubVP", "cosine", "geometric", "linear_beta",
]  # fmt: skip
