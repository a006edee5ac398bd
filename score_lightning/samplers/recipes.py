"""Samplers by name, each with the settings that a configuration gives it."""

from typing import Literal

from score_lightning.samplers.correctors import AnnealedLangevin, Langevin
from score_lightning.samplers.loop import Sampler
from score_lightning.samplers.predictors import DDIM, Ancestral
from score_lightning.schedules import Spacing

Range = tuple[float, float]


def ancestral(
    pixels: Range,
    variance: Literal["large", "small"] = "large",
    steps: int | None = None,
    spacing: Spacing = "uniform",
    clip: bool = True,
    denoise: bool = True,
) -> Sampler:
    """DDPM's sampler at `steps` times, x_0 clipped to the range of pixels."""
    return Sampler(Ancestral(variance), None, steps, spacing, denoise, pixels if clip else None)


def ddim(
    pixels: Range,
    eta: float = 0.0,
    steps: int | None = None,
    spacing: Spacing = "uniform",
    clip: bool = True,
    denoise: bool = True,
) -> Sampler:
    """DDIM at `steps` times, x_0 clipped to the range of pixels."""
    return Sampler(DDIM(eta), None, steps, spacing, denoise, pixels if clip else None)


def annealed_langevin(step_size: float, steps: int, denoise: bool = True) -> Sampler:
    """NCSN's sampler: `steps` Langevin steps at every level."""
    return Sampler(None, AnnealedLangevin(step_size, steps), denoise=denoise)


def langevin(step_size: float, steps: int, levels: int | None = 1, denoise: bool = True) -> Sampler:
    """Langevin dynamics with one step size: `steps` steps at each of `levels` times, the most noise first."""
    return Sampler(None, Langevin(step_size, steps), levels, denoise=denoise)
