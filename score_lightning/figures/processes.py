"""Figures of processes: from data to noise and back, the weights of modes, a discrete process against its limit."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.figures.trained import (
    BLUE,
    GRAY,
    ORANGE,
    Trained,
    exact_density,
    histogram,
    mixture,
    panels,
    scatter,
    seeded_noise,
)
from score_lightning.likelihood import continuous
from score_lightning.models import Model
from score_lightning.perturbation import transition
from score_lightning.samplers import Ancestral, AnnealedLangevin, EulerMaruyama, Langevin, sample
from score_lightning.samplers.loop import Predictor
from score_lightning.schedules import VP, Schedule, linear_beta

COUNTS = (30, 100, 300, 1000)  # of DDPM's levels, and of Euler-Maruyama's steps


def samples(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Data, samples, and the paths of some samples from noise, divided by alpha."""
    (one,) = trained
    figure, panes = panels(["data", "samples", "from noise to data"], size=3)
    states: list[Tensor] = []
    drawn = one.generator.batch(one.model, range(2000), seed=0, observe=states.append).images
    scatter(panes[0], data[:2000], 1.5, GRAY)
    scatter(panes[1], drawn, 1.5)
    alpha, _ = one.model.schedule(one.times)
    paths = torch.stack([x / a for x, a in zip(states, [*alpha.tolist(), 1.0], strict=True)])[:, :12]
    for path in paths.unbind(1):
        panes[2].plot(*path.T.tolist(), color=GRAY, linewidth=0.6)
    scatter(panes[2], paths[-1], 3, BLUE, 8)
    return figure


def mode_weights(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Two distant modes of weights 0.8 and 0.2: plain Langevin dynamics gets them wrong, annealed gets them right.

    Samples keep the noise of the last level, so that both dynamics can be compared.
    """
    (one,) = trained
    exact, schedule, n = one.exact(), one.model.schedule, 2000
    steps = len(schedule.times()) * 100
    samples_of = {
        "perturbed data": data[:n] + schedule(schedule.t_min)[1].to(data) * seeded_noise(4)(data[:n]),
        f"Langevin, {steps} steps, exact score": _plain_langevin(exact, n, steps),
        "annealed, exact score": _annealed_langevin(exact, n),
        "annealed, learned score": one.draw(n),
    }
    figure, panes = panels(list(samples_of), rows=2, size=3)
    for axes, (title, points) in zip(panes, samples_of.items(), strict=True):
        scatter(axes, points, 10.0)
        axes.set_title(f"{title}: {(points.sum(1) > 0).float().mean():.2f} above", fontsize=8)
    return figure


def _plain_langevin(model: Model, n: int, steps: int) -> Tensor:
    """(n, 2) points after Langevin dynamics at the least noise, from a uniform distribution on [-8, 8]^2."""
    x = 16 * torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) - 8
    times = model.schedule.t_min[None]
    return sample(model, x, times, corrector=Langevin(0.05, steps), denoise=False, randn_like=seeded_noise(1))


def _annealed_langevin(model: Model, n: int) -> Tensor:
    """(n, 2) points after annealed Langevin dynamics, from the prior."""
    x = model.schedule.prior((n, 2), seeded_noise(2))
    return sample(model, x, corrector=AnnealedLangevin(0.05, 100), denoise=False, randn_like=seeded_noise(3))


def forward_reverse(trained: Sequence[Trained], data: Tensor) -> Figure:
    """In one dimension: densities and paths of the forward and of the learned reverse process, and where it ends."""
    (one,) = trained
    figure, panes = panels(["forward process", "learned reverse process", "density of data"], size=3)
    states: list[Tensor] = []
    drawn = one.generator.batch(one.model, range(3000), seed=0, observe=states.append).images
    ascending = one.times.flip(0)
    _draw_paths(panes[0], one, ascending, walk(one.model.schedule, data[:8], ascending))
    _draw_paths(panes[1], one, one.times, torch.stack(states[:-1])[:, :8])
    panes[1].invert_xaxis()
    histogram(panes[2], drawn, color=BLUE, alpha=0.5, label="samples")
    exact_density(panes[2], one, linewidth=1)
    panes[2].legend(fontsize=7)
    return figure


def _draw_paths(axes: Axes, one: Trained, times: Tensor, paths: Tensor) -> None:
    """Paths (steps, N, 1) at these times, over the exact densities."""
    _densities(axes, one)
    axes.plot(times, paths[:, :, 0], linewidth=0.6, color="k", alpha=0.7)
    axes.set_xlabel("time", fontsize=8)


def limit(trained: Sequence[Trained], data: Tensor) -> Figure:  # noqa: ARG001
    """Discrete DDPM against its SDE: kernels, the error of both samplers, and one network sampled as both."""
    (one,) = trained
    figure, panes = panels(["alpha of DDPM and of VP", "distance to the data", "one network, two samplers"], size=3)
    _draw_kernels(panes[0])
    _draw_distances(panes[1], one)
    _draw_both_samplers(panes[2], one)
    for axes in panes:
        axes.legend(fontsize=6)
    return figure


def ddpm(levels: int) -> Schedule:
    """DDPM's schedule with another number of levels: its limit is VP (Song et al. 2021a, Eq. 32)."""
    return linear_beta(0.1 / levels, min(20 / levels, 0.999), levels)


def _draw_kernels(axes: Axes) -> None:
    """alpha of VP, and of DDPM with few levels."""
    t = torch.linspace(0.001, 1, 400, dtype=torch.float64)
    axes.plot(t, VP()(t)[0], color="k", linewidth=1, label="VP")
    for levels, color in ((30, ORANGE), (100, BLUE)):
        level = torch.arange(levels)
        axes.plot((level + 1) / levels, ddpm(levels)(level)[0], ".", ms=3, color=color, label=f"{levels} levels")
    axes.set_xlabel("time", fontsize=8)


def _draw_distances(axes: Axes, one: Trained) -> None:
    """Distance of samples of the exact model to the data, against levels of DDPM and steps of VP."""
    exact = mixture(one.set, VP())
    reference = exact.draw(100_000)[0]
    lines: dict[str, dict[int, float]] = {"DDPM levels": {}, "Euler-Maruyama steps": {}}
    for count in COUNTS:
        discrete = mixture(one.set, ddpm(count))
        lines["DDPM levels"][count] = distance(run(discrete, discrete.schedule.times(), Ancestral()), reference)
    for count in COUNTS:
        points = run(exact, exact.schedule.times(count), EulerMaruyama())
        lines["Euler-Maruyama steps"][count] = distance(points, reference)
    for (label, line), color in zip(lines.items(), (BLUE, ORANGE), strict=True):
        axes.loglog(list(line), list(line.values()), "o-", ms=3, color=color, label=label)
    axes.set_xticks(COUNTS, labels=[f"{count}" for count in COUNTS])
    axes.set_yticks([0.003, 0.01, 0.03], labels=["0.003", "0.01", "0.03"])
    axes.minorticks_off()
    axes.set_xlabel("levels or steps", fontsize=8)


def _draw_both_samplers(axes: Axes, one: Trained) -> None:
    """Samples of a discrete model by its own sampler and by the SDE of its limit."""
    times = one.model.schedule.continuous().times(1000)
    both = {"ancestral": one.draw(5000), "SDE of its limit": run(continuous(one.model), times, EulerMaruyama(), 5000)}
    for (label, points), color in zip(both.items(), (BLUE, ORANGE), strict=True):
        histogram(axes, points, histtype="step", color=color, label=label)
    exact_density(axes, one, linewidth=0.8)


def run(model: Model, times: Tensor, predictor: Predictor, n: int = 20_000) -> Tensor:
    """(n, 1) samples of a model in one dimension."""
    x = model.schedule.prior((n, 1), seeded_noise(0))
    return sample(model, x, times, predictor, randn_like=seeded_noise(1))


def distance(points: Tensor, reference: Tensor) -> float:
    """The Wasserstein distance between two sets of points (N, 1): the mean distance of their quantiles."""
    q = torch.linspace(0.0005, 0.9995, 1000)
    return float((points[:, 0].quantile(q) - reference[:, 0].quantile(q)).abs().mean())


def walk(schedule: Schedule, x_0: Tensor, times: Tensor) -> Tensor:
    """(steps, N, D): paths of the forward process from data (N, D), at ascending times."""
    noise = seeded_noise(5)
    alpha, sigma = schedule(times[0])
    path = [alpha.to(x_0) * x_0 + sigma.to(x_0) * noise(x_0)]
    for s, t in pairwise(times):
        alpha_ts, variance = (a.to(x_0) for a in transition(*schedule(s), *schedule(t)))
        path.append(alpha_ts * path[-1] + variance.clamp(min=0).sqrt() * noise(x_0))
    return torch.stack(path)


def _densities(axes: Axes, one: Trained) -> None:
    """The exact density at up to 300 of the sampler's times, each scaled to its largest value."""
    exact, ascending = one.exact(), one.times.flip(0)
    kept = ascending[:: max(1, len(ascending) // 150)]
    sigma = float(exact.schedule(ascending[-1])[1])
    reach = max(1.6, 2.5 * sigma)
    x = torch.linspace(-reach, reach, 300)
    columns = torch.stack([exact.log_prob(x[:, None], t).exp() for t in kept], 1)
    columns = columns / columns.max(0).values
    axes.pcolormesh(kept, x, columns, cmap="Greens", shading="nearest")
    axes.set_ylim(-reach, reach)
