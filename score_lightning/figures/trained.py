"""The trained models that figures are drawn from, and the elements that figures share."""

from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.data.toy import MIXTURES
from score_lightning.generation.generator import Generator
from score_lightning.models import GaussianMixtureModel, Model, ScoreModel
from score_lightning.schedules import RandnLike, Schedule

BLUE, ORANGE, GRAY = "tab:blue", "tab:orange", "0.6"
SPAN = 1.6  # plots in one dimension show [-SPAN, SPAN]


@dataclass(frozen=True)
class Trained:
    """A model after its training.

    Args:
        label: its name in the figure.
        model: with averaged weights.
        generator: with the sampler of its configuration.
        set: name of the set of points that it was trained on.
        losses: (step, loss) during training.
    """

    label: str
    model: ScoreModel
    generator: Generator
    set: str
    losses: list[tuple[int, float]]

    @property
    def times(self) -> Tensor:
        """The times that its sampler visits, descending."""
        return self.generator.sampler.times(self.model.schedule)

    def exact(self) -> GaussianMixtureModel:
        """The exact model of the same data, a mixture, under the same schedule."""
        return mixture(self.set, self.model.schedule)

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """(n, D) samples."""
        return self.generator.batch(self.model, range(n), seed).images


def mixture(name: str, schedule: Schedule) -> GaussianMixtureModel:
    """The exact model of one of `MIXTURES`."""
    means, std, weights = MIXTURES[name]
    return GaussianMixtureModel(means, std, weights, schedule)


def panels(titles: list[str], rows: int = 1, size: float = 2.6) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per title, and the axes of its panels."""
    columns = len(titles) // rows
    figure = Figure((size * columns, (size + 0.25) * rows), layout="constrained")
    panes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, title in zip(panes, titles, strict=True):
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=7)
    return figure, panes


def scatter(axes: Axes, points: Tensor, reach: float, color: str = BLUE, size: float = 2) -> None:
    """Points in the plane, in a window of [-reach, reach]^2."""
    x, y = points[:, :2].T.tolist()
    axes.scatter(x, y, s=size, color=color, alpha=0.5, linewidths=0, zorder=3)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def histogram(axes: Axes, points: Tensor, **style: Any) -> None:
    """The density of points (N, 1) by a histogram."""
    axes.hist(points[:, 0].tolist(), bins=80, range=(-SPAN, SPAN), density=True, **style)


def exact_density(axes: Axes, one: Trained, linewidth: float) -> None:
    """The exact density in one dimension, at the least noise."""
    x = torch.linspace(-SPAN, SPAN, 400)
    density = one.exact().log_prob(x[:, None], one.model.schedule.t_min).exp()
    axes.plot(x, density, color="k", linewidth=linewidth, label="exact")


def grid(reach: float, n: int) -> Tensor:
    """(n^2, 2) points of a grid over [-reach, reach]^2."""
    line = torch.linspace(-reach, reach, n)
    return torch.cartesian_prod(line, line)


def heat(axes: Axes, values: Tensor, reach: float, **style: Any) -> Any:
    """Values (n^2,) at the points of a grid, as colors."""
    n = round(len(values) ** 0.5)
    return axes.imshow(
        values.view(n, n).T, origin="lower", extent=(-reach, reach, -reach, reach), aspect="equal", **style
    )


@torch.no_grad()
def arrows(axes: Axes, model: Model, t: Tensor, reach: float, color: str = "k", n: int = 17) -> None:
    """The score at time t as arrows, whose length is the root of its norm."""
    x = grid(reach, n)
    score = model(x, t).score
    arrow = score / score.norm(dim=1, keepdim=True).clamp(min=1e-9).sqrt()
    axes.quiver(*x.T.tolist(), *arrow.T.tolist(), color=color, angles="xy", width=0.005)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def seeded_noise(seed: int) -> RandnLike:
    """A `randn_like` with its own generator."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)
