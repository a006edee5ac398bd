"""Plots of a training's log over its steps, as PNG files in memory."""

import io
import math
from collections.abc import Mapping, Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

Curve = Sequence[tuple[int, float]]
"""(step, value), in the order of steps."""

SIZE = (5.2, 2.6)  # inches, at 150 pixels each
SMOOTH = 20  # windows of a smoothed curve


def plot_loss(train: Curve, validation: Curve) -> bytes:
    """The training loss with its mean over a twentieth of the steps, and the validation loss."""
    figure, axes = _figure()
    if train:
        axes.plot(*_finite(train), color="tab:blue", alpha=0.4, linewidth=0.8)
        axes.plot(*_finite(smooth(train)), color="tab:blue", label="training")
    if validation:
        axes.plot(*_finite(validation), "o-", color="tab:orange", markersize=4, label="validation")
    if train or validation:
        axes.legend(frameon=False)
    _logarithmic(axes, [value for _, value in (*train, *validation)])
    return _save(figure, axes)


def plot_levels(levels: Mapping[str, Curve]) -> bytes:
    """The validation loss at each noise level, little noise dark; below, as shares of the first one where there are."""
    shares = {name: [(step, value / curve[0][1]) for step, value in curve] for name, curve in _comparable(levels)}
    panels = [("loss", levels), ("loss / first loss", shares)] if shares else [("loss", levels)]
    figure = Figure((SIZE[0], SIZE[1] * len(panels)))
    figure.subplots_adjust(left=0.16, right=0.8, top=1 - 0.05 / len(panels), bottom=0.18 / len(panels), hspace=0.08)
    drawn = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (label, lines) in zip(drawn, panels, strict=True):
        for i, name in enumerate(levels):
            color = colormaps["viridis"](0.9 * i / max(1, len(levels) - 1))
            axes.plot(*_finite(lines.get(name, [])), "o-", color=color, markersize=3, label=name)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        _logarithmic(axes, [value for curve in lines.values() for _, value in curve])
    drawn[0].legend(title="t", loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", frameon=False)
    return _save(figure, drawn[-1])


def _comparable(levels: Mapping[str, Curve]) -> list[tuple[str, Curve]]:
    """The curves of several values whose first one is positive."""
    return [(name, curve) for name, curve in levels.items() if len(curve) > 1 and curve[0][1] > 0]


def plot_rates(rates: Mapping[str, Curve]) -> bytes:
    """Learning rates."""
    figure, axes = _figure(height=1.8)
    for name, curve in rates.items():
        axes.plot(*_finite(curve), label=name)
    if len(rates) > 1:
        axes.legend(frameon=False)
    return _save(figure, axes)


def plot_metrics(metrics: Mapping[str, Curve]) -> bytes:
    """Each metric of the evaluations, below each other."""
    figure = Figure((SIZE[0], 1.3 * len(metrics) + 0.5))
    figure.subplots_adjust(left=0.16, right=0.97, top=1 - 0.1 / len(metrics), bottom=0.5 / len(metrics), hspace=0.3)
    panels = figure.subplots(len(metrics), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, curve) in zip(panels, metrics.items(), strict=True):
        axes.plot(*_finite(curve), "o-", markersize=4)
        axes.text(0.99, 0.95, name, ha="right", va="top", transform=axes.transAxes, fontsize="small")
        axes.margins(y=0.3)
        axes.grid(alpha=0.3)
    return _save(figure, panels[-1])


def smooth(curve: Curve) -> Curve:
    """Means of a curve's windows up to its end, of a twentieth of it but two values at least, at the mean step."""
    size = min(max(2, len(curve) // SMOOTH), len(curve))
    windows = [curve[i : i + size] for i in range(len(curve) % size, len(curve), size)] if curve else []
    return [(round(sum(s for s, _ in w) / size), sum(v for _, v in w) / size) for w in windows]


def _figure(height: float = SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure((SIZE[0], height))  # margins are given: to compute them would take longer than to draw
    axes = figure.add_axes((0.16, 0.46 / height, 0.81, 1 - 0.56 / height))
    axes.grid(alpha=0.3)
    return figure, axes


def _finite(curve: Curve) -> tuple[list[int], list[float]]:
    """Steps and values, without those that no plot can show."""
    kept = [(step, value) for step, value in curve if math.isfinite(value)]
    return [step for step, _ in kept], [value for _, value in kept]


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Makes the y axis of values logarithmic where all are positive, with plain numbers where they are alike."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or min(finite) <= 0:
        return
    axes.set_yscale("log")
    if max(finite) < 100 * min(finite):
        axes.yaxis.set_major_formatter("{x:g}")
        few = max(finite) < 5 * min(finite)  # else labels of the powers of 10 are enough
        axes.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 4, 5, 6, 8) if few else (2, 5)))
        axes.yaxis.set_minor_formatter("{x:g}")


def _save(figure: Figure, axes: Axes) -> bytes:
    axes.set_xlabel("step")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
