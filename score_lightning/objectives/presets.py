"""Objectives by name, with the settings that a configuration gives them."""

from collections.abc import Callable
from typing import Any

from score_lightning.objectives.bound import Hybrid, VariationalBound
from score_lightning.objectives.consistency import Consistency
from score_lightning.objectives.denoising import Denoising, Times
from score_lightning.objectives.importance import ImportanceSampled
from score_lightning.objectives.learned import LearnedWeights
from score_lightning.objectives.matching import Implicit, Sliced
from score_lightning.perturbation import Variance


def denoising(
    weight: str = "sigma2",
    times: Times = "uniform",
    gamma: float = 5.0,
    sigma_data: float = 0.5,
    log_mean: float = -1.2,
    log_std: float = 1.2,
    stratified: bool = False,
    learned: bool = False,
) -> Denoising | LearnedWeights:
    """Denoising score matching, its weights `learned` on top of the given one or not."""
    objective = Denoising(weight, times, gamma, sigma_data, log_mean, log_std, stratified)
    return LearnedWeights(objective) if learned else objective


def variational_bound(
    variance: Variance = "small",
    importance: bool = False,
    low: float = -1.0,
    high: float = 1.0,
    gray_levels: int | None = 256,
    levels: int | None = None,
) -> VariationalBound | Hybrid | ImportanceSampled:
    """L_vlb, at uniform or importance-sampled times; low and high are the range of pixels, of so many gray levels."""
    return _at_times(VariationalBound(variance, low, high, gray_levels), importance, levels)


def hybrid(
    weight: float = 0.001,
    importance: bool = False,
    low: float = -1.0,
    high: float = 1.0,
    gray_levels: int | None = 256,
    levels: int | None = None,
) -> VariationalBound | Hybrid | ImportanceSampled:
    """L_hybrid, at uniform or importance-sampled times; as `variational_bound`."""
    return _at_times(Hybrid(weight, low, high, gray_levels), importance, levels)


def _at_times(
    objective: VariationalBound | Hybrid, importance: bool, levels: int | None
) -> VariationalBound | Hybrid | ImportanceSampled:
    return ImportanceSampled(objective, levels) if importance else objective


PRESETS: dict[str, Callable[..., Any]] = {
    "denoising": denoising,
    "implicit": Implicit,
    "sliced": Sliced,
    "variational_bound": variational_bound,
    "hybrid": hybrid,
    "consistency": Consistency,
}
"""Name in a configuration -> its constructor."""
