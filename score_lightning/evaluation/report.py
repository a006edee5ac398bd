"""The files of an evaluation: metrics.json, and report.html, a single page that can be mailed."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_lightning.evaluation.intervals import Values
from score_lightning.evaluation.page import figure, section, table, write_part
from score_lightning.evaluation.plots import label_of
from score_lightning.runtime.files import write_text
from score_lightning.runtime.nested import flatten

METRICS = "metrics.json"


def summarize(seeds: Sequence[Values]) -> dict[str, Any]:
    """The metrics of a seed, or means over several, with `intervals` by name where there are any.

    Of several seeds there is also `spread`: mean, standard deviation and values of each metric.
    """
    mean = Values.mean(seeds)
    intervals = mean.intervals
    means: dict[str, Any] = {**mean.metrics, **({"intervals": intervals} if intervals else {})}
    if len(seeds) == 1:
        return means
    values = {name: [seed.metrics[name] for seed in seeds] for name in mean.values}
    spread = {n: {"mean": means[n], "std": statistics.stdev(v), "values": v} for n, v in values.items()}
    return {**means, "spread": spread}


def write_metrics(folder: Path, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> Path:
    """Writes metrics.json: metrics by flat names such as fid_inception, beside `settings`."""
    path = folder / METRICS
    write_text(path, json.dumps({**metrics, "settings": dict(settings)}, indent=2) + "\n")
    return path


def write_report(
    folder: Path, title: str, metrics: Mapping[str, Any], settings: Mapping[str, Any], pictures: Mapping[str, str]
) -> Path:
    """Writes the evaluation's part of report.html, one page with the pictures embedded.

    Args:
        folder: where the pictures are.
        title: of the page.
        metrics: the contents of metrics.json besides settings.
        settings: the settings of metrics.json.
        pictures: file name -> "heading: caption".
    """
    body = [metrics_section(metrics), *(_picture(folder / name, text) for name, text in pictures.items())]
    body.append(section("Settings", table([["setting", "value"], *setting_rows(settings)])))
    return write_part(folder, "evaluation", title, "\n".join(body))


def metrics_section(metrics: Mapping[str, Any]) -> str:
    """The metrics as a table, and those that are not available."""
    entries = metrics.get("sweep", [metrics])
    rows = _sweep_rows(entries) if "sweep" in metrics else _rows(metrics)
    missing = [[name, reason] for name, reason in metrics.get("unavailable", {}).items()]
    parts = [section("Metrics", table(rows))]
    bits = [[name, f"{metrics[name]:.4f}"] for name in metrics if name.startswith("bits_per_dim")]
    if bits and "sweep" in metrics:
        parts.append(section("Likelihood", table([["metric", "value"], *bits])))
    if any("spread" in entry for entry in entries):
        parts.append("<p>Mean ± standard deviation over the seeds.</p>")
    if any("intervals" in entry for entry in entries):
        parts.append("<p>In brackets: 95 % intervals, of the draw of the images.</p>")
    if missing:
        parts.append(section("Not available", table([["metric", "because"], *missing])))
    return "\n".join(parts)


def _names(entry: Mapping[str, Any]) -> list[str]:
    return [name for name, value in entry.items() if isinstance(value, float) and name != "images_per_second"]


def _rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """One row per metric, below a head."""
    return [["metric", "value"], *([name, show(metrics, name)] for name in _names(metrics))]


def _sweep_rows(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """One row per sampler, below a head."""
    names = [name for name in _names(entries[0]) if "_std_" not in name]
    rows = [["sampler", "evaluations", *names]]
    for entry in entries:
        label = [label_of(entry["sampler"], entries), f"{entry['evaluations_per_image']:,}"]
        rows.append([*label, *(show(entry, name) for name in names)])
    return rows


def show(entry: Mapping[str, Any], name: str) -> str:
    """A metric, its standard deviation over the seeds, and its interval; what rounds to 0 has no sign."""
    spread, interval = entry.get("spread", {}).get(name), entry.get("intervals", {}).get(name)
    bounds = "" if interval is None else f" [{interval[0]:z.4f}, {interval[1]:z.4f}]"
    return f"{entry[name]:z.4f}" + (f" ± {spread['std']:.4f}" if spread else "") + bounds


def _picture(path: Path, text: str) -> str:
    heading, _, caption = text.partition(": ")
    kind = "plot" if path.name in ("levels.png", "sweep.png") else "pixels"
    return section(heading, figure(path.read_bytes(), heading, caption, kind))


def setting_rows(settings: Mapping[str, Any]) -> list[list[str]]:
    """One row per setting, nested ones by their path."""
    return [[name, "–" if value is None else str(value)] for name, value in flatten(settings).items()]
