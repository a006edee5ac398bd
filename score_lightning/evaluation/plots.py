"""Plots of numbers as PNG files, legible on the screen of a phone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

WIDTH = 5.2  # inches, at 150 pixels each


def plot_levels(sigmas: Sequence[float], losses: Sequence[float], path: Path) -> Path:
    """The validation loss at each noise level, against sigma / alpha, both axes logarithmic."""
    figure = Figure((WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.loglog(sigmas, losses, "o-", color="tab:blue")
    axes.set_xlabel("noise level, sigma / alpha")
    axes.set_ylabel("validation loss")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=150)
    return path


def plot_sweep(entries: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> Path:
    """Each metric against network evaluations, one line per sampler, with its interval or spread, the larger one.

    Args:
        entries: each with `sampler` (its settings, the name among them), `evaluations_per_image`, the metrics, and
            their `intervals` and, where there are several seeds, their `spread`.
        names: of the metrics.
        path: of the PNG.
    """
    figure = Figure((WIDTH, 2.2 * len(names)), layout="constrained")
    ticks = sorted({entry["evaluations_per_image"] for entry in entries})
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        for label, line in _lines(entries).items():
            spread = [_error(entry, name) for entry in line]
            x, y = [entry["evaluations_per_image"] for entry in line], [entry[name] for entry in line]
            axes.errorbar(x, y, spread, fmt="o-", capsize=3, label=label)
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    axes.set_xlabel("network evaluations per image")
    figure.axes[0].legend()
    figure.savefig(path, dpi=150)
    return path


def _error(entry: Mapping[str, Any], name: str) -> float:
    """Half the interval of a metric, or its standard deviation over seeds where that is larger."""
    low, high = entry.get("intervals", {}).get(name, (0.0, 0.0))
    std: float = entry.get("spread", {}).get(name, {}).get("std", 0.0)
    return max((high - low) / 2, std)


def _lines(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Entries by sampler and all its settings except the steps, in order of their evaluations."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for entry in sorted(entries, key=lambda e: e["evaluations_per_image"]):
        lines.setdefault(label_of(entry["sampler"], entries), []).append(entry)
    return lines


def label_of(sampler: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> str:
    """A sampler's name, with the settings besides steps that differ among entries of that name."""
    same = [entry["sampler"] for entry in entries if entry["sampler"]["name"] == sampler["name"]]
    differing = [k for k in sampler if k not in ("name", "steps") and len({str(other.get(k)) for other in same}) > 1]
    return " ".join([sampler["name"], *(f"{key}={sampler[key]}" for key in differing)])
