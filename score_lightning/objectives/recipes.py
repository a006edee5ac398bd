"""Objectives by name whose settings are not those of one constructor."""

from score_lightning.objectives.bound import Hybrid, VariationalBound
from score_lightning.objectives.importance import ImportanceSampled
from score_lightning.perturbation import Variance


def variational_bound(
    variance: Variance = "small",
    importance: bool = False,
    low: float = -1.0,
    high: float = 1.0,
    levels: int | None = None,
) -> VariationalBound | ImportanceSampled:
    """L_vlb, at uniform or importance-sampled times; low and high are the range of pixels."""
    bound = VariationalBound(variance, low, high)
    return ImportanceSampled(bound, levels) if importance else bound


def hybrid(
    weight: float = 0.001, importance: bool = False, low: float = -1.0, high: float = 1.0, levels: int | None = None
) -> Hybrid | ImportanceSampled:
    """L_hybrid, at uniform or importance-sampled times; low and high are the range of pixels."""
    both = Hybrid(weight, low, high)
    return ImportanceSampled(both, levels) if importance else both
