"""What figures are drawn from, and the axes they share."""

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

BLUE, ORANGE, GREY = "tab:blue", "tab:orange", "0.6"


@dataclass(frozen=True)
class Trained:
    """A model after its training.

    Args:
        label: that it is shown by.
        model: with averaged weights.
        generator: with the sampler of its configuration.
        set: of points, that it was trained on.
        losses: (step, loss) in training.
    """

    label: str
    model: ScoreModel
    generator: Generator
    set: str
    losses: list[tuple[int, float]]

    def exact(self, schedule: Schedule | None = None) -> GaussianMixtureModel:
        """The exact model of the same data, a mixture, under its schedule or another."""
        return mixture(self.set, schedule or self.model.schedule)

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """(n, D) points by its sampler."""
        return self.generator.batch(self.model, range(n), seed).images


def mixture(name: str, schedule: Schedule) -> GaussianMixtureModel:
    """The exact model of one of `MIXTURES`."""
    means, std, weights = MIXTURES[name]
    return GaussianMixtureModel(means, std, weights, schedule)


def panels(titles: list[str], rows: int = 1, size: float = 2.6) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title."""
    columns = len(titles) // rows
    figure = Figure((size * columns, (size + 0.25) * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place, title in zip(axes, titles, strict=True):
        place.set_title(title, fontsize=9)
        place.tick_params(labelsize=7)
    return figure, axes


def scatter(axes: Axes, points: Tensor, reach: float, color: str = BLUE, size: float = 2) -> None:
    """Points in the plane, in a window of [-reach, reach]^2."""
    x, y = points[:, :2].T.tolist()
    axes.scatter(x, y, s=size, color=color, alpha=0.5, linewidths=0, zorder=3)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


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
    """The direction of a score at time t, the length growing with the root of its norm."""
    x = grid(reach, n)
    score = model(x, t).score
    drawn = score / score.norm(dim=1, keepdim=True).clamp(min=1e-9).sqrt()
    axes.quiver(*x.T.tolist(), *drawn.T.tolist(), color=color, angles="xy", width=0.005)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def seeded_noise(seed: int) -> RandnLike:
    """Standard normal numbers from a seed: a `randn_like`."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)
