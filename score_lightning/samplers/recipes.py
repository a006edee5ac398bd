"""Samplers by name, each with the settings that a configuration gives it."""

import math

from score_lightning.perturbation import Variance
from score_lightning.samplers.correctors import AnnealedLangevin, Langevin
from score_lightning.samplers.flow import ProbabilityFlow
from score_lightning.samplers.loop import Sampler
from score_lightning.samplers.predictors import DDIM, Ancestral, EulerMaruyama, ReverseDiffusion
from score_lightning.samplers.solvers import DPMSolverPP, Heun
from score_lightning.schedules import Spacing

Range = tuple[float, float]


def ancestral(
    pixels: Range,
    variance: Variance = "large",
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


def langevin(
    steps: int,
    step_size: float | None = None,
    snr: float | None = None,
    levels: int | None = 1,
    spacing: Spacing = "uniform",
    denoise: bool = True,
) -> Sampler:
    """Langevin dynamics: `steps` steps, of one size or by signal-to-noise ratio, at each of `levels` times."""
    return Sampler(None, Langevin(step_size, steps, snr), levels, spacing, denoise)


def reverse_diffusion(
    pixels: Range, steps: int | None = None, spacing: Spacing = "uniform", clip: bool = False, denoise: bool = True
) -> Sampler:
    """The score SDEs' predictor at `steps` times."""
    return Sampler(ReverseDiffusion(), None, steps, spacing, denoise, pixels if clip else None)


def euler_maruyama(
    pixels: Range, steps: int | None = None, spacing: Spacing = "uniform", clip: bool = False, denoise: bool = True
) -> Sampler:
    """The reverse SDE at `steps` times of a continuous schedule."""
    return Sampler(EulerMaruyama(), None, steps, spacing, denoise, pixels if clip else None)


def heun(
    pixels: Range,
    steps: int | None = None,
    spacing: Spacing = "log_snr",
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float | None = None,
    churn_noise: float = 1.0,
    clip: bool = True,
    denoise: bool = True,
) -> Sampler:
    """Heun's method for the probability-flow ODE, x_0 clipped to pixels; with churn, EDM's stochastic sampler."""
    solver = Heun(churn, churn_min, math.inf if churn_max is None else churn_max, churn_noise)
    return Sampler(solver, None, steps, spacing, denoise, pixels if clip else None)


def dpm_solver(
    pixels: Range, steps: int | None = None, spacing: Spacing = "uniform", clip: bool = True, denoise: bool = True
) -> Sampler:
    """DPM-Solver++(2M) at `steps` times, x_0 clipped to the range of pixels."""
    return Sampler(DPMSolverPP(), None, steps, spacing, denoise, pixels if clip else None)


def probability_flow(
    rtol: float = 1e-5, atol: float = 1e-5, steps: int = 2, spacing: Spacing = "log_snr", denoise: bool = True
) -> Sampler:
    """The probability-flow ODE of a continuous schedule, with adaptive steps between `steps` times."""
    return Sampler(ProbabilityFlow(rtol, atol), None, steps, spacing, denoise)


PREDICTORS = {
    "ancestral": Ancestral, "ddim": DDIM, "reverse_diffusion": ReverseDiffusion, "euler_maruyama": EulerMaruyama,
    "heun": Heun, "dpm_solver": DPMSolverPP, "probability_flow": ProbabilityFlow,
}  # fmt: skip


def predictor_corrector(
    pixels: Range,
    predictor: str = "reverse_diffusion",
    snr: float | None = 0.16,
    step_size: float | None = None,
    corrector_steps: int = 1,
    steps: int | None = None,
    spacing: Spacing = "uniform",
    clip: bool = False,
    denoise: bool = True,
) -> Sampler:
    """A predictor, and at each time Langevin steps: by their signal-to-noise ratio, or annealed from a step size."""
    if predictor not in PREDICTORS:
        raise ValueError(f"predictor must be one of {', '.join(PREDICTORS)}, got {predictor!r}")
    if (snr is None) == (step_size is None):
        raise ValueError(f"either snr or step_size is needed, the other null; got {snr} and {step_size}")
    corrector = (
        Langevin(snr=snr, steps=corrector_steps) if step_size is None else AnnealedLangevin(step_size, corrector_steps)
    )
    return Sampler(PREDICTORS[predictor](), corrector, steps, spacing, denoise, pixels if clip else None)
