"""Figures of the probability flow itself: its paths, and how straight they are."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.figures.trained import BLUE, GRAY, Trained, panels, scatter, seeded_noise
from score_lightning.models import Model, ScoreModel
from score_lightning.objectives import Denoising
from score_lightning.samplers import DDIM, Heun, trajectory

PAIRS, STEPS, BATCH, LR = 20_000, 3000, 256, 0.002  # of the training on pairs


def reflow(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Paths of a rectified flow, and of one trained on its own pairs of noise and data, which are straighter.

    Above both the length of a path in units of the distance between its ends. Then samples of both in one Euler step.
    """
    (one,) = trained
    noise = one.model.schedule.prior((PAIRS, 2), seeded_noise(1))
    straight = _trained_on(one.model, _paths(one.model, noise)[-1], noise)
    titles = ["data", "flow", "reflow", "flow, 1 step", "reflow, 1 step"]
    figure, panes = panels(titles, size=2.6)
    scatter(panes[0], data[:2000], 1.5, GRAY)
    for place, model in enumerate((one.model, straight)):
        paths = _paths(model, noise[:2000])
        for path in paths[:, :12].unbind(1):
            panes[1 + place].plot(*path.T.tolist(), color=GRAY, linewidth=0.6)
        scatter(panes[1 + place], paths[-1, :500], 3, BLUE, 4)
        length = paths.diff(dim=0).norm(dim=2).sum(0) / (paths[-1] - paths[0]).norm(dim=1)
        panes[1 + place].set_title(f"{titles[1 + place]}: length {length.mean():.3f}", fontsize=9)
        *_, drawn = trajectory(model, noise[:2000], model.schedule.times(1), DDIM())
        scatter(panes[3 + place], drawn, 1.5)
    return figure


@torch.no_grad()
def _paths(model: Model, noise: Tensor, steps: int = 40) -> Tensor:
    """(steps + 1, N, 2) states of the flow from noise (N, 2) to data."""
    return torch.stack(list(trajectory(model, noise, model.schedule.times(steps, end=1 / steps), Heun())))


def _trained_on(model: ScoreModel, x_0: Tensor, noise: Tensor) -> ScoreModel:
    """A copy of the model, trained further on pairs (N, 2) of data and noise (Liu et al. 2023, Alg. 1)."""
    model = copy.deepcopy(model).train().requires_grad_(True)
    generator, loss = torch.Generator().manual_seed(2), Denoising("velocity")
    optimizer = torch.optim.Adam(model.parameters(), LR)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            rows = torch.randint(len(x_0), (BATCH,), generator=generator)
            t = loss.draw_t(model.schedule, torch.rand(BATCH, generator=generator))
            optimizer.zero_grad()
            loss(model, x_0[rows], t, partial(_given, noise[rows])).mean().backward()
            optimizer.step()
            decay.step()
    return model.eval().requires_grad_(False)


def _given(eps: Tensor, x: Tensor) -> Tensor:  # noqa: ARG001
    return eps
