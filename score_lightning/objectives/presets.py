"""Objectives by name, with the settings that a configuration gives them."""

from collections.abc import Callable
from typing import Any

from score_lightning.objectives.bound import Hybrid, VariationalBound
from score_lightning.objectives.consistency import Consistency
from score_lightning.objectives.denoising import Denoising
from score_lightning.objectives.importance import ImportanceSampled
from score_lightning.objectives.matching import Implicit, Sliced
from score_lightning.perturbation import Variance


def variational_bound(
    variance: Variance = "small",
    importance: bool = False,
    low: float = -1.0,
    high: float = 1.0,
    levels: int | None = None,
) -> VariationalBound | Hybrid | ImportanceSampled:
    """L_vlb, at uniform or importance-sampled times; low and high are the range of pixels."""
    return _at_times(VariationalBound(variance, low, high), importance, levels)


def hybrid(
    weight: float = 0.001, importance: bool = False, low: float = -1.0, high: float = 1.0, levels: int | None = None
) -> VariationalBound | Hybrid | ImportanceSampled:
    """L_hybrid, at uniform or importance-sampled times; low and high are the range of pixels."""
    return _at_times(Hybrid(weight, low, high), importance, levels)


def _at_times(
    objective: VariationalBound | Hybrid, importance: bool, levels: int | None
) -> VariationalBound | Hybrid | ImportanceSampled:
    return ImportanceSampled(objective, levels) if importance else objective


PRESETS: dict[str, Callable[..., Any]] = {
    "denoising": Denoising,
    "implicit": Implicit,
    "sliced": Sliced,
    "variational_bound": variational_bound,
    "hybrid": hybrid,
    "consistency": Consistency,
}
"""Name in a configuration -> its constructor."""
