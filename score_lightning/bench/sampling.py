"""The time of a sampler relative to that of its network evaluations alone.

All samplers use the same network, ours, so that only the samplers differ. Each is compared with as many bare forward
passes as it evaluates the network.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from score_lightning.bench import ours
from score_lightning.bench.settings import OURS, Settings, Size, sizes
from score_lightning.bench.tables import Bound, Table, timed
from score_lightning.bench.timing import Timing, alternate
from score_lightning.models import ScoreModel
from score_lightning.samplers import DDIM, Ancestral, AnnealedLangevin, DPMSolverPP, Heun, Sampler
from score_lightning.schedules import geometric

Case = tuple[Callable[[], Any], int]
"""A call of a sampler, and its number of network evaluations."""


def run(settings: Settings) -> list[Table]:
    """A table for each network."""
    return [_table(size, settings) for size in sizes(settings)]


def _table(size: Size, settings: Settings) -> Table:
    model = ours.build_model(size).to(settings.device).eval()
    net: Any = model.net
    large = size.exp == "ddpm_cifar"
    steps = 4 if settings.quick else 6 if large else 20
    if large:
        size = replace(size, batch=min(size.batch, 2))  # with few images the overhead of a sampler shows
    x, t = ours.inputs(size, settings.device)
    projects = {
        OURS: _ours(model, x, steps),
        "diffusers": _diffusers(net, x, steps),
        "azula": _azula(net, x, steps),
    }
    rows = []
    for project, cases in projects.items():
        for name, (function, evaluations) in cases.items():
            overhead = _overhead(function, evaluations, net, (x, t), settings)
            bound = Bound("overhead in %", overhead.median, 2 if large else 10)
            bounds = (bound,) if project == OURS else ()
            note = f"{evaluations} evaluations"
            rows.append(timed(f"{project}: {name}", overhead, 1, note=note, bounds=bounds))
    return Table(f"Time over the bare forward passes, {size.title}, batch {size.batch}", "%", rows)


def _overhead(
    function: Callable[[], Any], evaluations: int, net: Any, inputs: tuple[Tensor, Tensor], settings: Settings
) -> Timing:
    """100 (sampler / forward passes - 1), for each pair of calls."""

    def forwards() -> None:
        with torch.no_grad():
            for _ in range(evaluations):
                net(*inputs)

    timings = alternate({"forwards": forwards, "sampler": function}, settings.repeats(5), settings.warmup(1))
    pairs = zip(timings["sampler"].seconds, timings["forwards"].seconds, strict=True)
    return Timing(tuple(100 * (sampler / bare - 1) for sampler, bare in pairs))


def _ours(model: ScoreModel, x: Tensor, steps: int) -> dict[str, Case]:
    clip = (-1.0, 1.0)
    samplers = {
        "ancestral": Sampler(Ancestral(), None, steps, clip=clip),
        "ddim": Sampler(DDIM(), None, steps, clip=clip),
        "heun": Sampler(Heun(), None, steps, clip=clip),
        "dpm_solver": Sampler(DPMSolverPP(), None, steps, clip=clip),
    }
    cases: dict[str, Case] = {name: _case(sampler, model, x) for name, sampler in samplers.items()}
    levels = ScoreModel(model.net, geometric(0.01, 1.0, max(2, steps // 5)), "score", "level").eval()
    cases["annealed_langevin"] = _case(Sampler(None, AnnealedLangevin(2e-5, 5)), levels, x)
    return cases


def _case(sampler: Sampler, model: ScoreModel, x: Tensor) -> Case:
    evaluations = sampler.evaluations(model.schedule)
    assert evaluations is not None
    return lambda: sampler(model, x), evaluations


def _diffusers(net: Any, x: Tensor, steps: int) -> dict[str, Case]:
    """The loop of its pipelines with each of its schedulers; empty where the package is not installed."""
    with suppress(ImportError):
        from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler

        schedulers = {
            "ancestral": (DDPMScheduler(), steps),
            "ddim": (DDIMScheduler(), steps),
            "heun": (HeunDiscreteScheduler(), 2 * steps - 1),
            "dpm_solver": (DPMSolverMultistepScheduler(), steps),
        }
        return {name: (_pipeline(net, scheduler, x, steps), n) for name, (scheduler, n) in schedulers.items()}
    return {}


def _pipeline(net: Any, scheduler: Any, x: Tensor, steps: int) -> Callable[[], Tensor]:
    @torch.no_grad()
    def sample() -> Tensor:
        scheduler.set_timesteps(steps, device=x.device)
        x_t = x * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            output = net(scheduler.scale_model_input(x_t, t), t.expand(len(x)))
            x_t = scheduler.step(output, t, x_t).prev_sample
        return x_t

    return sample


def _azula(net: nn.Module, x: Tensor, steps: int) -> dict[str, Case]:
    """Its samplers; empty where the package is not installed."""
    with suppress(ImportError):
        from azula.denoise import SimpleDenoiser
        from azula.noise import VPSchedule
        from azula.sample import DDIMSampler, DDPMSampler, HeunSampler

        denoiser = SimpleDenoiser(_SharedTime(net), VPSchedule()).eval()
        samplers = {"ancestral": (DDPMSampler, 1), "ddim": (DDIMSampler, 1), "heun": (HeunSampler, 2)}
        return {
            name: (_bind(sampler(denoiser, steps=steps, silent=True), x), steps * evaluations)
            for name, (sampler, evaluations) in samplers.items()
        }
    return {}


def _bind(sampler: Any, x: Tensor) -> Callable[[], Any]:
    return lambda: sampler(x)


class _SharedTime(nn.Module):
    """A network that takes a single time for all images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Any:
        return self.net(x, t.expand(len(x)))
