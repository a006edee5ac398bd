"""Models of conditional distributions: given a label, or given a part of the data.

Each takes the place of a model in any sampler and any objective.
"""

from score_lightning.conditional.base import Clipped, Wrapper
from score_lightning.conditional.labels import NO_LABEL, AugmentationConditioned, LabelConditioned, condition
from score_lightning.conditional.measurement import (
    Measurement,
    MeasurementConditioned,
    colorization,
    inpainting,
    upsampling,
)

__all__ = [
    "NO_LABEL", "AugmentationConditioned", "Clipped", "LabelConditioned", "Measurement", "MeasurementConditioned",
    "Wrapper", "colorization", "condition", "inpainting", "upsampling",
]  # fmt: skip
