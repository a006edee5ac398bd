"""Figures of the theory, drawn from models of points."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.config import Config
from score_lightning.config import Figure as Spec
from score_lightning.data.toy import MIXTURES
from score_lightning.errors import UserError
from score_lightning.figures.fields import langevin, manifold, objectives, rare, score_field
from score_lightning.figures.flows import reflow
from score_lightning.figures.guided import guidance
from score_lightning.figures.processes import forward_reverse, limit, mode_weights, samples
from score_lightning.figures.trained import Trained


@dataclass(frozen=True)
class Kind:
    """A figure and what it needs.

    Args:
        draw: (trained models, data (N, D)) -> figure.
        points: D.
        mixture: whether the data must be a mixture, whose score is known.
        models: how many it compares; any number when None.
    """

    draw: Callable[[Sequence[Trained], Tensor], Figure]
    points: int = 2
    mixture: bool = True
    models: int | None = 1


FIGURES = {
    "score_field": Kind(score_field),
    "langevin": Kind(langevin),
    "objectives": Kind(objectives, models=3),
    "manifold": Kind(manifold, mixture=False, models=2),
    "rare": Kind(rare, models=None),
    "mode_weights": Kind(mode_weights),
    "forward_reverse": Kind(forward_reverse, points=1),
    "limit": Kind(limit, points=1),
    "samples": Kind(samples, mixture=False),
    "reflow": Kind(reflow, mixture=False),
    "guidance": Kind(guidance, models=3),
}
"""The figures by name."""


def check_figure(figure: Spec, config: Config) -> None:
    """Refuses a figure that cannot be drawn of a configuration's points and variants.

    Raises:
        UserError: with what it needs.
    """
    name, kind = figure.name, FIGURES.get(str(figure.name))
    if kind is None:
        raise UserError(f"figure must be one of {', '.join(FIGURES)}, or null; got {name}")
    if config.points != kind.points:
        raise UserError(f"figure {name} is of points={kind.points}; got points={config.points}")
    if kind.mixture and config.data.get("set") not in MIXTURES:
        raise UserError(
            f"figure {name} needs data.set to be one of {', '.join(MIXTURES)}; got {config.data.get('set')}"
        )
    models = max(1, len(figure.variants))
    if kind.models not in (None, models):
        raise UserError(f"figure {name} compares {kind.models} models; got {models} in variants")
    if config.trainer.devices != "1":
        raise UserError(f"figure {name} needs trainer.devices=1: one process draws it")


__all__ = ["FIGURES", "Trained", "check_figure"]
