"""Score fields: what is learned, where it fails, and what Langevin dynamics makes of it."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.figures.trained import (
    BLUE,
    GREY,
    ORANGE,
    Trained,
    arrows,
    grid,
    heat,
    panels,
    scatter,
    seeded_noise,
)
from score_lightning.models import Model
from score_lightning.samplers import Langevin, sample
from score_lightning.schedules import RandnLike

REACH = 1.6  # of windows around data of size 1


def score_field(trained: Sequence[Trained], data: Tensor) -> Figure:  # noqa: ARG001
    """A mixture's density and score, the learned score, and where gradient ascent and Langevin dynamics end."""
    (one,) = trained
    exact, t = one.exact(), one.model.schedule.t_min
    figure, axes = panels(["density, exact score", "learned score", "gradient ascent", "Langevin dynamics"], rows=2)
    density = exact.log_prob(grid(REACH, 150), t).exp()
    for place in axes:
        heat(place, density, REACH, cmap="Greens")
    arrows(axes[0], exact, t, REACH)
    arrows(axes[1], one.model, t, REACH)
    start = 2 * REACH * torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) - REACH
    scatter(axes[2], chain(one.model, start, 1e-3, 1000, torch.zeros_like), REACH, ORANGE, 25)
    scatter(axes[3], chain(one.model, start, 1e-3, 1000, seeded_noise(1)), REACH, ORANGE, 4)
    return figure


def manifold(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Data on a line: the loss of sliced score matching does not settle, with slightly noised data it does."""
    figure, axes = panels(["training loss", *(f"learned score: {one.label}" for one in trained)], size=3)
    for one, color in zip(trained, (BLUE, ORANGE), strict=True):
        steps, losses = zip(*one.losses, strict=True)
        axes[0].plot(steps, losses, color=color, label=one.label, linewidth=1)
    axes[0].set_yscale("symlog")
    axes[0].set_xlabel("step", fontsize=8)
    axes[0].legend(fontsize=7)
    for place, one in zip(axes[1:], trained, strict=True):
        scatter(place, data[:2000], REACH)
        arrows(place, one.model, one.model.schedule.t_min, REACH)
    return figure


def rare(trained: Sequence[Trained], data: Tensor) -> Figure:
    """The error of each learned score where data are rare, and the samples that follow from it."""
    reach = 9.0
    titles = [f"{one.label}: relative error" for one in trained] + ["samples"] * len(trained)
    figure, axes = panels(titles, rows=2)
    for top, bottom, one in zip(axes[: len(trained)], axes[len(trained) :], trained, strict=True):
        schedule, x = one.model.schedule, grid(reach, 80)
        t = schedule.times(1)[0]  # the most noise: where sampling meets the regions between
        with torch.no_grad():
            wanted, found = one.exact()(x, t).score, one.model(x, t).score
        error = (found - wanted).norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-3)
        shown = heat(top, error, reach, cmap="magma", vmin=0, vmax=1)
        scatter(top, data[:300], reach, "w", 1)
        drawn = one.draw(1000)
        scatter(bottom, drawn, reach)
        bottom.set_title(f"{(drawn.sum(1) > 0).float().mean():.2f} in the upper mode (0.80)", fontsize=8)
    figure.colorbar(shown, ax=axes[: len(trained)], shrink=0.8)
    return figure


def langevin(trained: Sequence[Trained], data: Tensor) -> Figure:  # noqa: ARG001
    """Some trajectories of Langevin dynamics in a learned field, and all chains after so many steps."""
    (one,) = trained
    counts = (10, 100, 1000)
    figure, axes = panels(["five trajectories", *(f"{count} steps" for count in counts)], rows=2)
    t, noise = one.model.schedule.t_min, seeded_noise(0)
    density = one.exact().log_prob(grid(REACH, 150), t).exp()
    x = 2 * REACH * torch.rand(1000, 2, generator=torch.Generator().manual_seed(1)) - REACH
    path = [x]
    for _ in range(max(counts)):
        path.append(chain(one.model, path[-1], 1e-3, 1, noise))
    for place, count in zip(axes[1:], counts, strict=True):
        heat(place, density, REACH, cmap="Greens")
        scatter(place, path[count], REACH, ORANGE, 3)
    heat(axes[0], density, REACH, cmap="Greens")
    for i in range(5):
        line = torch.stack(path)[:300, i]
        axes[0].plot(*line.T.tolist(), linewidth=0.7)
        axes[0].plot(*line[0].tolist(), "k.", markersize=4)
    axes[0].set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
    return figure


def objectives(trained: Sequence[Trained], data: Tensor) -> Figure:
    """The scores that several objectives lead to, beside the exact one, and their errors on perturbed data."""
    exact, t = trained[0].exact(), trained[0].model.schedule.t_min
    figure, axes = panels(["exact", *(one.label for one in trained)], rows=2)
    x = data[:5000]
    x = x + exact.schedule(t)[1].to(x) * seeded_noise(0)(x)
    wanted = exact(x, t).score
    models: list[Model] = [exact, *(one.model for one in trained)]
    for place, model in zip(axes, models, strict=True):
        scatter(place, data[:1000], REACH, GREY, 1)
        arrows(place, model, t, REACH)
    for place, one in zip(axes[1:], trained, strict=True):
        with torch.no_grad():
            error = (one.model(x, t).score - wanted).square().sum() / wanted.square().sum()
        place.set_title(f"{one.label}: error {error.sqrt():.1%}", fontsize=9)
    return figure


def chain(model: Model, x: Tensor, delta: float, steps: int, noise: RandnLike) -> Tensor:
    """x after so many Langevin steps at the least noise."""
    times = model.schedule.t_min[None]
    return sample(model, x, times, corrector=Langevin(delta, steps), denoise=False, randn_like=noise)
