"""The figure of guidance: by a model of more data, by a worse model of the same data, and by none."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from score_lightning.conditional import Guided, Strength
from score_lightning.figures.trained import BLUE, GRAY, Trained, panels, scatter, seeded_noise
from score_lightning.models import GaussianMixtureModel, Model

WEIGHT, N = 1.0, 3000


def guidance(trained: Sequence[Trained], data: Tensor) -> Figure:
    """Samples of a class without guidance, guided away from all classes and from a worse model (Karras et al. 2024a).

    The models are those of the class, of all classes and the worse one. Above each panel the share of samples where the
    exact density is below that of 99.5 % of the data, and the entropy of the components that samples are nearest to, in
    units of that of data: less than 1 where guidance drops some of them.
    """
    one, every, worse = trained
    strength, exact = Strength(WEIGHT), one.exact()
    models: dict[str, Model | None] = {
        "data": None,
        "exact score": exact,
        "no guidance": one.model,
        "guided by all classes": Guided(one.model, every.model, strength),
        "guided by a worse model": Guided(one.model, worse.model, strength),
    }
    figure, panes = panels(list(models))
    figure.set_figheight(3.2)
    for axes, (title, model) in zip(panes, models.items(), strict=True):
        points = data[:N] if model is None else _draw(one, model)
        scatter(axes, points, 1.3, GRAY if model is None else BLUE, 1)
        axes.set_title(f"{title}\n{_judge(points, data, exact)}", fontsize=8)
        _frame(axes)
    return figure


def _draw(one: Trained, model: Model) -> Tensor:
    noise = seeded_noise(1)
    start = model.schedule.prior((N, 2), noise, one.times[0])
    return one.generator.sampler(model, start, noise)


def _judge(points: Tensor, data: Tensor, exact: GaussianMixtureModel) -> str:
    t = exact.schedule.t_min
    least = exact.log_prob(data[:N], t).quantile(0.005)
    outside = (exact.log_prob(points, t) < least).double().mean()
    return f"outside {100 * outside:.1f} %, entropy {_entropy(points, exact) / _entropy(data[:N], exact):.2f}"


def _entropy(points: Tensor, exact: GaussianMixtureModel) -> float:
    nearest = (points[:, None] - exact.means.to(points)).norm(dim=2).argmin(1)
    share = nearest.bincount(minlength=len(exact.means)) / len(points)
    return float(-(share * share.clamp(min=1e-12).log()).sum())


def _frame(axes: Axes) -> None:
    axes.set(xlim=(-0.3, 1.15), ylim=(-0.55, 0.9), xticks=[], yticks=[])
