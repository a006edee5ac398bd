"""Figures of score fields: what is learned, where it fails, and where Langevin dynamics leads."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.figures.trained import (
    BLUE,
    GRAY,
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

REACH = 1.6  # windows show [-REACH, REACH]^2, around data of size 1


def score_field(trained: Sequence[Trained], data: Tensor) -> Figure:  # noqa: ARG001
    """A mixture's density and score, the learned score, and where gradient ascent and Langevin dynamics end."""
    (one,) = trained
    exact, t = one.exact(), one.model.schedule.t_min
    figure, panes = panels(["density, exact score", "learned score", "gradient ascent", "Langevin dynamics"], rows=2)
    density = exact.log_prob(grid(REACH, 150), t).exp()
    for axes in panes:
        heat(axes, density, REACH, cmap="Greens")
    arrows(panes[0], exact, t, REACH)
    arrows(panes[1], one.model, t, REACH)
    x = 2 * REACH * torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) - REACH
    scatter(panes[2], chain(one.model, x, 1e-3, 1000, torch.zeros_like), REACH, ORANGE, 25)
    scatter(panes[3], chain(one.model, x, 1e-3, 1000, seeded_noise(1)), REACH, ORANGE, 4)
    return figure


def manifold(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Data on a line: sliced score matching does not converge; with slightly perturbed data it does."""
    figure, panes = panels(["training loss", *(f"learned score: {one.label}" for one in trained)], size=3)
    for one, color in zip(trained, (BLUE, ORANGE), strict=True):
        steps, losses = zip(*one.losses, strict=True)
        panes[0].plot(steps, losses, color=color, label=one.label, linewidth=1)
    panes[0].set_yscale("symlog")
    panes[0].set_xlabel("step", fontsize=8)
    panes[0].legend(fontsize=7)
    for axes, one in zip(panes[1:], trained, strict=True):
        scatter(axes, data[:2000], REACH)
        arrows(axes, one.model, one.model.schedule.t_min, REACH)
    return figure


def rare(trained: Sequence[Trained], data: Tensor) -> Figure:
    """The error of each learned score where data are rare, and the samples that it leads to."""
    reach = 9.0
    titles = [f"{one.label}: relative error" for one in trained] + ["samples"] * len(trained)
    figure, panes = panels(titles, rows=2)
    for top, bottom, one in zip(panes[: len(trained)], panes[len(trained) :], trained, strict=True):
        x = grid(reach, 80)
        t = one.model.schedule.times(1)[0]  # the most noise: where sampling passes the regions between the modes
        with torch.no_grad():
            exact, learned = one.exact()(x, t).score, one.model(x, t).score
        error = (learned - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-3)
        image = heat(top, error, reach, cmap="magma", vmin=0, vmax=1)
        scatter(top, data[:300], reach, "w", 1)
        drawn = one.draw(1000)
        scatter(bottom, drawn, reach)
        bottom.set_title(f"{(drawn.sum(1) > 0).float().mean():.2f} in the upper mode (0.80)", fontsize=8)
    figure.colorbar(image, ax=panes[: len(trained)], shrink=0.8)
    return figure


def langevin(trained: Sequence[Trained], data: Tensor) -> Figure:  # noqa: ARG001
    """Some trajectories of Langevin dynamics in a learned field, and all chains after several numbers of steps."""
    (one,) = trained
    counts = (10, 100, 1000)
    figure, panes = panels(["five trajectories", *(f"{count} steps" for count in counts)], rows=2)
    t, noise = one.model.schedule.t_min, seeded_noise(0)
    density = one.exact().log_prob(grid(REACH, 150), t).exp()
    x = 2 * REACH * torch.rand(1000, 2, generator=torch.Generator().manual_seed(1)) - REACH
    path = [x]
    for _ in range(max(counts)):
        path.append(chain(one.model, path[-1], 1e-3, 1, noise))
    for axes, count in zip(panes[1:], counts, strict=True):
        heat(axes, density, REACH, cmap="Greens")
        scatter(axes, path[count], REACH, ORANGE, 3)
    heat(panes[0], density, REACH, cmap="Greens")
    for trajectory in torch.stack(path[:300])[:, :5].unbind(1):
        panes[0].plot(*trajectory.T.tolist(), linewidth=0.7)
        panes[0].plot(*trajectory[0].tolist(), "k.", markersize=4)
    panes[0].set(xlim=(-REACH, REACH), ylim=(-REACH, REACH))
    return figure


def objectives(trained: Sequence[Trained], data: Tensor) -> Figure:
    """The scores that several objectives lead to, beside the exact one, and their errors on perturbed data."""
    exact, t = trained[0].exact(), trained[0].model.schedule.t_min
    figure, panes = panels(["exact", *(one.label for one in trained)], rows=2)
    x = data[:5000]
    x = x + exact.schedule(t)[1].to(x) * seeded_noise(0)(x)
    score = exact(x, t).score
    models: list[Model] = [exact, *(one.model for one in trained)]
    for axes, model in zip(panes, models, strict=True):
        scatter(axes, data[:1000], REACH, GRAY, 1)
        arrows(axes, model, t, REACH)
    for axes, one in zip(panes[1:], trained, strict=True):
        with torch.no_grad():
            error = (one.model(x, t).score - score).square().sum() / score.square().sum()
        axes.set_title(f"{one.label}: error {error.sqrt():.1%}", fontsize=9)
    return figure


def chain(model: Model, x: Tensor, delta: float, steps: int, noise: RandnLike) -> Tensor:
    """x (N, D) after Langevin steps of size `delta` at the least noise."""
    times = model.schedule.t_min[None]
    return sample(model, x, times, corrector=Langevin(delta, steps), denoise=False, randn_like=noise)
