"""Noise levels for a data set (Song & Ermon 2020), computed from its training images."""

from dataclasses import dataclass

import torch

from score_lightning.config import Resolved
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.schedules import tuning


@dataclass(frozen=True)
class Suggestion:
    """A ladder of noise levels and the step of annealed Langevin dynamics on it.

    Args:
        images: how many were compared with each other.
        dimensions: of an image.
        pixels: (low, high) range of pixels.
        sigma_min, sigma_max: the smallest and the largest noise.
        levels: from one to the other.
        step_size: of `steps` Langevin steps at each level.
    """

    images: int
    dimensions: int
    pixels: tuple[float, float]
    sigma_min: float
    sigma_max: float
    levels: int
    step_size: float
    steps: int

    def overrides(self) -> str:
        """The suggestion as key=value overrides."""
        return (
            f"schedule=geometric schedule.sigma_min={self.sigma_min:g} schedule.sigma_max={self.sigma_max:g} "
            f"schedule.levels={self.levels} sampler=annealed_langevin sampler.step_size={self.step_size:.3g} "
            f"sampler.steps={self.steps}"
        )

    def __str__(self) -> str:
        return f"""\
{self.images} images of {self.dimensions} dimensions in [{self.pixels[0]:g}, {self.pixels[1]:g}]
  sigma_1     {self.sigma_max:<10g} the largest distance between two of them (technique 1)
  L           {self.levels:<10} levels down to {self.sigma_min:g}, neighbors overlapping by 0.5 (technique 2)
  step size   {self.step_size:<10.3g} for {self.steps} steps at each level (technique 4)

To paste:
{self.overrides()}"""


def suggest_noise(resolved: Resolved, sigma_min: float, steps: int, n: int | None = None) -> Suggestion:
    """NCSNv2's techniques 1, 2 and 4 for the training images of a configuration.

    Args:
        resolved: the configuration, of which the images and their range count.
        sigma_min: the smallest noise.
        steps: Langevin steps at each level.
        n: how many images are compared, the first ones; all when None.

    Raises:
        UserError: when the images cannot be read, or are all alike.
    """
    experiment = Experiment(resolved)
    pixels, (images, _) = experiment.pixels, experiment.split
    n = min(n or len(images), len(images))
    x = torch.cat([pixels.encode(images[part]).flatten(1) for part in torch.arange(n).split(1000)])
    sigma_max = tuning.largest_distance(x, progress=True)
    if sigma_max <= sigma_min:
        raise UserError(f"all images are alike: their largest distance is {sigma_max:.3g}")
    sigma_max, dimensions = float(f"{sigma_max:.3g}"), x.shape[1]
    levels = tuning.count_levels(sigma_min, sigma_max, dimensions)
    step_size = tuning.choose_step(sigma_min, sigma_max, levels, steps)
    return Suggestion(n, dimensions, (pixels.low, pixels.high), sigma_min, sigma_max, levels, step_size, steps)
