"""Processes: from data to noise and back, the weights of modes, and a discrete process against its limit."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.figures.trained import BLUE, GREY, ORANGE, Trained, mixture, panels, scatter, seeded_noise
from score_lightning.likelihood import continuous
from score_lightning.models import Model
from score_lightning.perturbation import transition
from score_lightning.samplers import Ancestral, AnnealedLangevin, EulerMaruyama, Langevin, sample
from score_lightning.samplers.loop import Predictor
from score_lightning.schedules import VP, Schedule, linear_beta


def samples(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Data, samples, and the way there from noise."""
    (one,) = trained
    figure, axes = panels(["data", "samples", "from noise to data"], size=3)
    states: list[Tensor] = []
    drawn = one.generator.batch(one.model, range(2000), seed=0, observe=states.append).images
    scatter(axes[0], data[:2000], 1.5, GREY)
    scatter(axes[1], drawn, 1.5)
    alpha = one.model.schedule(one.model.schedule.times(one.generator.sampler.steps, one.generator.sampler.spacing))[0]
    path = torch.stack([x / a for x, a in zip(states, [*alpha.tolist(), 1.0], strict=True)])[:, :12]
    for i in range(12):
        axes[2].plot(*path[:, i].T.tolist(), color=GREY, linewidth=0.6)
    scatter(axes[2], path[-1], 3, BLUE, 8)
    return figure


def mode_weights(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Two far modes of weights 0.8 and 0.2: plain Langevin dynamics gets them wrong, annealed gets them right.

    Samples keep the noise of the last level, so that both dynamics can be compared.
    """
    (one,) = trained
    exact, ladder, n = one.exact(), one.model.schedule, 2000
    start = 16 * torch.rand(n, 2, generator=torch.Generator().manual_seed(0)) - 8
    total = len(ladder.times()) * 100
    plain = sample(
        exact, start, ladder.t_min[None], corrector=Langevin(0.05, total), denoise=False, randn_like=seeded_noise(1)
    )
    wide = ladder.prior((n, 2), seeded_noise(2))
    drawn = {
        "perturbed data": data[:n] + ladder(ladder.t_min)[1].to(data) * seeded_noise(4)(data[:n]),
        f"Langevin, {total} steps, exact score": plain,
        "annealed, exact score": sample(
            exact, wide, corrector=AnnealedLangevin(0.05, 100), denoise=False, randn_like=seeded_noise(3)
        ),
        "annealed, learned score": one.draw(n),
    }
    figure, axes = panels(list(drawn), rows=2, size=3)
    for place, (title, points) in zip(axes, drawn.items(), strict=True):
        scatter(place, points, 10.0)
        place.set_title(f"{title}: {(points.sum(1) > 0).float().mean():.2f} above", fontsize=8)
    return figure


def forward_reverse(trained: Sequence[Trained], data: Tensor) -> Figure:
    """In one dimension: densities and paths of the forward process, those of the learned reverse process, the ends."""
    (one,) = trained
    schedule, sampler = one.model.schedule, one.generator.sampler
    times = schedule.times(sampler.steps, sampler.spacing)
    figure, axes = panels(["forward process", "learned reverse process", "density of data"], size=3)
    states: list[Tensor] = []
    drawn = one.generator.batch(one.model, range(3000), seed=0, observe=states.append).images
    for place, paths in zip(
        axes, (walk(schedule, data[:8], times.flip(0)), torch.stack(states[:-1])[:, :8]), strict=False
    ):
        ordered = times.flip(0) if place is axes[0] else times
        _densities(place, one, times)
        place.plot(ordered, paths[:, :, 0], linewidth=0.6, color="k", alpha=0.7)
        place.set_xlabel("time", fontsize=8)
    axes[1].invert_xaxis()
    x = torch.linspace(-1.6, 1.6, 400)
    axes[2].hist(drawn[:, 0].tolist(), bins=80, range=(-1.6, 1.6), density=True, color=BLUE, alpha=0.5, label="samples")
    axes[2].plot(x, one.exact().log_prob(x[:, None], schedule.t_min).exp(), color="k", linewidth=1, label="exact")
    axes[2].legend(fontsize=7)
    return figure


def limit(trained: Sequence[Trained], data: Tensor) -> Figure:  # noqa: ARG001
    """Discrete DDPM against its SDE: kernels, the error of both samplers, and one network sampled as both."""
    (one,) = trained
    figure, axes = panels(["alpha of DDPM and of VP", "distance to the data", "one network, two samplers"], size=3)
    counts, vp = (10, 30, 100, 300, 1000), VP()
    t = torch.linspace(0.001, 1, 400, dtype=torch.float64)
    axes[0].plot(t, vp(t)[0], color="k", linewidth=1, label="VP")
    ladders = {levels: linear_beta(0.1 / levels, min(20 / levels, 0.999), levels) for levels in counts if levels > 20}
    for levels, color in ((30, ORANGE), (100, BLUE)):
        ladder = ladders[levels]
        axes[0].plot(
            (torch.arange(levels) + 1) / levels,
            ladder(torch.arange(levels))[0],
            ".",
            ms=3,
            color=color,
            label=f"{levels} levels",
        )
    axes[0].set_xlabel("time", fontsize=8)
    exact = mixture(one.set, vp)
    reference = exact.draw(100_000)[0]
    lines: dict[str, dict[int, float]] = {
        "DDPM of so many levels": {
            levels: distance(run(mixture(one.set, ladder), ladder.times(), Ancestral()), reference)
            for levels, ladder in ladders.items()
        },
        "Euler-Maruyama steps": {
            steps: distance(run(exact, vp.times(steps), EulerMaruyama()), reference) for steps in counts[1:]
        },
    }
    for (label, line), color in zip(lines.items(), (BLUE, ORANGE), strict=True):
        axes[1].loglog(list(line), list(line.values()), "o-", ms=3, color=color, label=label)
    axes[1].set_xticks(counts[1:], labels=[f"{count}" for count in counts[1:]])
    axes[1].set_yticks([0.003, 0.01, 0.03], labels=["0.003", "0.01", "0.03"])
    axes[1].minorticks_off()
    axes[1].set_xlabel("levels or steps", fontsize=8)
    times = one.model.schedule.continuous().times(1000)
    both = {"ancestral": one.draw(5000), "SDE of its limit": run(continuous(one.model), times, EulerMaruyama(), 5000)}
    for (label, points), color in zip(both.items(), (BLUE, ORANGE), strict=True):
        axes[2].hist(
            points[:, 0].tolist(), bins=80, range=(-1.6, 1.6), density=True, histtype="step", color=color, label=label
        )
    x = torch.linspace(-1.6, 1.6, 400)
    axes[2].plot(
        x, one.exact().log_prob(x[:, None], one.model.schedule.t_min).exp(), color="k", linewidth=0.8, label="exact"
    )
    for place in axes:
        place.legend(fontsize=6)
    return figure


def run(model: Model, times: Tensor, predictor: Predictor, n: int = 20_000) -> Tensor:
    """(n, 1) points of a model in one dimension."""
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


def _densities(axes: Axes, one: Trained, times: Tensor) -> None:
    """The exact density at every time, each scaled to its largest value."""
    exact, first = one.exact(), times.flip(0)
    kept = first[:: max(1, len(first) // 150)]
    sigma = float(exact.schedule(times[0])[1])
    reach = max(1.6, 2.5 * sigma)
    x = torch.linspace(-reach, reach, 300)
    columns = torch.stack([exact.log_prob(x[:, None], t).exp() for t in kept], 1)
    columns = columns / columns.max(0).values
    axes.pcolormesh(kept, x, columns, cmap="Greens", shading="nearest")
    axes.set_ylim(-reach, reach)
