"""Samplers by name, with the settings that a configuration gives them.

A preset with a predictor takes the keywords of what it builds and those of the loop: steps, spacing and end of the
times, clip, whether x_0 is clipped to the range of pixels, and denoise.
"""

import inspect
import math
import typing
from collections.abc import Callable
from typing import Any

from score_lightning.samplers.correctors import AnnealedLangevin, Langevin
from score_lightning.samplers.flow import ProbabilityFlow
from score_lightning.samplers.loop import Predictor, Sampler
from score_lightning.samplers.predictors import DDIM, Ancestral, EulerMaruyama, Multistep, ReverseDiffusion
from score_lightning.samplers.solvers import DPMSolverPP, Heun
from score_lightning.schedules import Spacing

Preset = Callable[..., Sampler]
Build = Callable[..., Predictor | tuple[Predictor, Langevin]]
Range = tuple[float, float]


def preset(build: Build, spacing: Spacing = "uniform", steps: int | None = None, clip: bool | None = False) -> Preset:
    """A sampler of what is built, with the keywords of `build` and of the loop.

    Args:
        build: gives a predictor, or one and a corrector.
        spacing, steps, clip: defaults of the loop's keywords; with a clip of None there is no such keyword.
    """
    loop: dict[str, tuple[Any, Any]] = {
        "steps": (int | None if steps is None else int, steps),
        "spacing": (Spacing, spacing),
        **({} if clip is None else {"clip": (bool, clip)}),
        "denoise": (bool, True),
        "end": (float | None, None),
    }
    hints = typing.get_type_hints(build.__init__ if inspect.isclass(build) else build)
    of_build = inspect.signature(build).parameters
    keywords = [p.replace(annotation=hints[name]) for name, p in of_build.items()]
    keywords += [_keyword(name, hint, default) for name, (hint, default) in loop.items()]
    if clip is not None:
        keywords.insert(0, _keyword("pixels", Range, inspect.Parameter.empty))
    signature = inspect.Signature(keywords, return_annotation=Sampler)

    def make(*args: Any, **options: Any) -> Sampler:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        values = bound.arguments
        built = build(**{name: values[name] for name in of_build})
        predictor, corrector = built if isinstance(built, tuple) else (built, None)
        pixels = values["pixels"] if values.get("clip") else None
        loop = (values["steps"], values["spacing"], values["denoise"], pixels, values["end"])
        return Sampler(predictor, corrector, *loop)

    make.__annotations__ = {parameter.name: parameter.annotation for parameter in keywords}
    make.__signature__ = signature  # type: ignore[attr-defined]
    return make


def _keyword(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=hint)


def _heun(
    churn: float = 0.0, churn_min: float = 0.0, churn_max: float | None = None, churn_noise: float = 1.0
) -> Predictor:
    return Heun(churn, churn_min, math.inf if churn_max is None else churn_max, churn_noise)


def _probability_flow(rtol: float = 1e-5, atol: float = 1e-5) -> Predictor:
    return ProbabilityFlow(rtol, atol)


PREDICTORS: dict[str, Callable[..., Predictor]] = {
    "ancestral": Ancestral, "ddim": DDIM, "reverse_diffusion": ReverseDiffusion, "euler_maruyama": EulerMaruyama,
    "heun": Heun, "dpm_solver": DPMSolverPP, "probability_flow": ProbabilityFlow, "multistep": Multistep,
}  # fmt: skip


def _predictor_corrector(
    predictor: str = "reverse_diffusion",
    snr: float | None = 0.16,
    step_size: float | None = None,
    corrector_steps: int = 1,
) -> tuple[Predictor, Langevin]:
    """A predictor, and at each time Langevin steps: by their signal-to-noise ratio, or annealed from a step size."""
    if predictor not in PREDICTORS:
        raise ValueError(f"predictor must be one of {', '.join(PREDICTORS)}, got {predictor!r}")
    if (snr is None) == (step_size is None):
        raise ValueError(f"either snr or step_size is needed, the other null; got {snr} and {step_size}")
    corrector = (
        Langevin(snr=snr, steps=corrector_steps) if step_size is None else AnnealedLangevin(step_size, corrector_steps)
    )
    return PREDICTORS[predictor](), corrector


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


PRESETS: dict[str, Preset] = {
    "ancestral": preset(Ancestral, clip=True),
    "ddim": preset(DDIM, clip=True),
    "annealed_langevin": annealed_langevin,
    "langevin": langevin,
    "reverse_diffusion": preset(ReverseDiffusion),
    "euler_maruyama": preset(EulerMaruyama),
    "heun": preset(_heun, spacing="log_snr", clip=True),
    "dpm_solver": preset(DPMSolverPP, clip=True),
    "probability_flow": preset(_probability_flow, steps=2, clip=None),
    "multistep": preset(Multistep, steps=2),
    "predictor_corrector": preset(_predictor_corrector),
}
"""Name in a configuration -> its constructor."""
