"""Models of conditional distributions: given a label or a picture, a part of the data or a noisy observation of it.

Each takes the place of a model in any sampler and any objective.
"""

from score_lightning.conditional.base import Clipped, Evidence, Wrapper
from score_lightning.conditional.editing import Edit
from score_lightning.conditional.guidance import NO_GUIDANCE, Guided, Strength
from score_lightning.conditional.labels import NO_LABEL, AugmentationConditioned, LabelConditioned
from score_lightning.conditional.masks import Masked
from score_lightning.conditional.measurement import (
    Measurement,
    MeasurementConditioned,
    colorization,
    inpainting,
    upsampling,
)
from score_lightning.conditional.operators import (
    BicubicDownsample,
    Blur,
    Downsample,
    GaussianBlur,
    Gray,
    Mask,
    MotionBlur,
    Observation,
    Operator,
    adjoint,
)
from score_lightning.conditional.pictured import Given, PictureConditioned, condition
from score_lightning.conditional.pictures import Condition, Grayscale, LowResolution, Paired
from score_lightning.conditional.posterior import DPS, METHODS, MMPS, ObservationConditioned, PiGDM, Posterior

__all__ = [
    "DPS", "METHODS", "MMPS", "NO_GUIDANCE", "NO_LABEL", "AugmentationConditioned", "BicubicDownsample", "Blur",
    "Clipped", "Condition", "Downsample", "Edit", "Evidence", "GaussianBlur", "Given", "Gray", "Grayscale", "Guided",
    "LabelConditioned", "LowResolution", "Mask", "Masked", "Measurement", "MeasurementConditioned", "MotionBlur",
    "Observation", "ObservationConditioned", "Operator", "Paired", "PiGDM", "PictureConditioned", "Posterior",
    "Strength", "Wrapper", "adjoint", "colorization", "condition", "inpainting", "upsampling",
]  # fmt: skip
