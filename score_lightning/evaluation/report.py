"""The files of an evaluation: metrics.json, and report.html, a single page that can be mailed."""

import base64
import html
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_lightning.evaluation.intervals import Values
from score_lightning.evaluation.plots import label_of
from score_lightning.runtime.files import write_text
from score_lightning.runtime.nested import flatten

METRICS, PAGE = "metrics.json", "report.html"


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
    """Writes report.html, one page with the pictures embedded.

    Args:
        folder: where the pictures are.
        title: of the page.
        metrics: the contents of metrics.json besides settings.
        settings: the settings of metrics.json.
        pictures: file name -> "heading: caption".
    """
    body = [_metrics(metrics), *(_picture(folder / name, text) for name, text in pictures.items())]
    body.append(_section("Settings", _table([["setting", "value"], *_setting_rows(settings)])))
    path = folder / PAGE
    write_text(path, _PAGE.format(title=html.escape(title), body="\n".join(body)))
    return path


def _metrics(metrics: Mapping[str, Any]) -> str:
    entries = metrics.get("sweep", [metrics])
    rows = _sweep_rows(entries) if "sweep" in metrics else _rows(metrics)
    missing = [[name, reason] for name, reason in metrics.get("unavailable", {}).items()]
    parts = [_section("Metrics", _table(rows))]
    bits = [[name, f"{metrics[name]:.4f}"] for name in metrics if name.startswith("bits_per_dim")]
    if bits and "sweep" in metrics:
        parts.append(_section("Likelihood", _table([["metric", "value"], *bits])))
    if any("spread" in entry for entry in entries):
        parts.append("<p>Mean ± standard deviation over the seeds.</p>")
    if any("intervals" in entry for entry in entries):
        parts.append("<p>In brackets: 95 % intervals, of the draw of the images.</p>")
    if missing:
        parts.append(_section("Not available", _table([["metric", "because"], *missing])))
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
    source = base64.b64encode(path.read_bytes()).decode()
    kind = "plot" if path.name in ("levels.png", "sweep.png") else "pixels"
    image = f'<img class="{kind}" alt="{html.escape(heading)}" src="data:image/png;base64,{source}">'
    return _section(heading, f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")


def _section(heading: str, content: str) -> str:
    return f"<h2>{html.escape(heading)}</h2>\n{content}"


def _setting_rows(settings: Mapping[str, Any]) -> list[list[str]]:
    return [[name, "–" if value is None else str(value)] for name, value in flatten(settings).items()]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ([f"<{tag}>{_breakable(cell)}</{tag}>" for cell in row] for row, tag in _tagged(rows))
    lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in body)
    kind = ' class="wide"' if len(head) > 2 else ""
    return f"<div{kind}><table><thead><tr>{''.join(head)}</tr></thead><tbody>\n{lines}\n</tbody></table></div>"


def _breakable(cell: str) -> str:
    """The text of a cell, with places for line breaks within the names of metrics and settings."""
    return re.sub(r"(?<=\w)([_.])(?=\D)", r"\1<wbr>", html.escape(cell)) if " " not in cell else html.escape(cell)


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], str]]:
    return [(row, "td" if i else "th") for i, row in enumerate(rows)]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.4rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
figure {{ margin: 0; }}
figcaption {{ opacity: .75; font-size: .9rem; }}
img {{ max-width: 100%; height: auto; background: #fff; }}
img.pixels {{ image-rendering: pixelated; }}
img.plot {{ width: 40rem; }}
.wide {{ overflow-x: auto; }}
.wide :is(th, td):first-child {{ position: sticky; left: 0; background: Canvas; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }}
td {{ overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }}
td:first-child {{ overflow-wrap: normal; }}
.wide td {{ white-space: nowrap; }}
@media (max-width: 30rem) {{ body {{ font-size: 14px; }} }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
