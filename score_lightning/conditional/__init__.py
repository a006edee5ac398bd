"""Models of conditional distributions: given a label, or given a part of the data.

Each takes the place of a model in any sampler and any objective.
"""

from score_lightning.conditional.base import Clipped, Wrapper
from score_lightning.conditional.guidance import NO_GUIDANCE, Guided, Strength
from score_lightning.conditional.labels import NO_LABEL, AugmentationConditioned, LabelConditioned, condition
from score_lightning.conditional.measurement import (
    Measurement,
    MeasurementConditioned,
    colorization,
    inpainting,
    upsampling,
)

__all__ = [
    "NO_GUIDANCE", "NO_LABEL", "AugmentationConditioned", "Clipped", "Guided", "LabelConditioned", "Measurement",
    "MeasurementConditioned", "Strength", "Wrapper", "colorization", "condition", "inpainting", "upsampling",
]  # fmt: skip
