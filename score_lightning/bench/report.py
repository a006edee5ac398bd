"""Results as a page: Markdown with tables, pictures beside it, and all numbers as JSON."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_lightning.bench.settings import OURS
from score_lightning.bench.tables import Row, Table, plain, read
from score_lightning.errors import UserError

MANY = 6  # lines from which on the legend is beside the curves, and those of peers are gray

INTRODUCTION = """# Benchmarks{where}

`make {target}` measured these numbers and wrote this page. Whatever is compared ran alternately in one process,
many times; the numbers are medians and quartiles. A ratio divides a row by the fastest peer that does the same work.
"""


@dataclass(frozen=True)
class Page:
    """A page of results.

    Args:
        out: folder of the page.
        device: cpu or cuda.
    """

    out: Path
    device: str

    @property
    def name(self) -> str:
        """Name of the page, and of the folder of its pictures and numbers."""
        return "benchmarks_gpu" if self.device == "cuda" else "benchmarks"

    @property
    def folder(self) -> Path:
        """The folder of pictures and numbers."""
        return self.out / self.name

    def earlier(self) -> dict[str, Any]:
        """Results of earlier measurements, by suite.

        Raises:
            UserError: when the file is damaged.
        """
        path = self.folder / "results.json"
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}. Remove it") from error

    def write(self, results: Mapping[str, Any], measured: str) -> None:
        """Writes the page and the numbers, and the pictures of the suite that was measured.

        Args:
            results: suite -> its `about`, `machine`, `seconds`, `quick`, and `tables` or `left_out`.
            measured: name of the suite.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for table in results[measured]["tables"]:
            draw(read(table), self.folder)
        (self.folder / "results.json").write_text(
            json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (self.out / f"{self.name}.md").write_text("\n\n".join(self._parts(results)) + "\n", encoding="utf-8")

    def _parts(self, results: Mapping[str, Any]) -> Iterator[str]:
        gpu = self.device == "cuda"
        text = INTRODUCTION.format(where=" on a GPU" if gpu else "", target="bench-gpu" if gpu else "bench")
        yield text.strip()
        tables = {suite: [read(table) for table in result["tables"]] for suite, result in results.items()}
        if any(result["quick"] for result in results.values()):
            yield "**Measured with `quick=true`: a test that everything runs, not a measurement.**"
        yield from _bounds(tables)
        yield from _machines(results)
        for suite, result in results.items():
            yield f"## {suite}"
            yield result["about"]
            if result["left_out"]:
                yield f"Left out: {result['left_out']}"
            for table in tables[suite]:
                yield table.markdown()
                if (self.folder / _picture(table)).is_file():
                    yield f"![{table.title}]({self.name}/{_picture(table)})"


def _bounds(tables: Mapping[str, list[Table]]) -> Iterator[str]:
    """A table of all bounds, and whether they are met."""
    lines = [
        f"| {suite} | {table.title}: {row.name} | {bound} |"
        for suite, tables_of_suite in tables.items()
        for table in tables_of_suite
        for row in table.rows
        for bound in row.bounds
    ]
    if lines:
        yield "\n".join(["| suite | what | bound |", "| --- | --- | --- |", *lines])


def _machines(results: Mapping[str, Any]) -> Iterator[str]:
    """The machine; one line for each where suites ran on several, or with different versions."""
    machines: dict[str, list[str]] = {}
    for suite, result in results.items():
        text = "; ".join(f"{name}: {value}" for name, value in result["machine"].items())
        machines.setdefault(text, []).append(suite)
    for text, suites in machines.items():
        yield f"Measured for {', '.join(suites)}: {text}."


def _picture(table: Table) -> str:
    return re.sub(r"\W+", "_", table.title.lower().replace("é", "e"), flags=re.ASCII).strip("_") + ".png"


def draw(table: Table, folder: Path) -> None:
    """Writes the picture of a table, if it has something to draw and matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    if not table.curves and len(table.rows) < 2:
        return
    many = any(len(curves.lines) > MANY for curves in table.curves)
    size = (9.6 if many else 6.4, 3.6 if table.curves else 0.8 + 0.3 * len(table.rows))
    figure = Figure(size, layout="constrained")
    if table.curves:
        _draw_curves(figure, table)
    else:
        _draw_bars(figure.add_subplot(), table)
    figure.savefig(folder / _picture(table), dpi=110)


def _draw_curves(figure: Any, table: Table) -> None:
    for axes, curves in zip(figure.subplots(1, len(table.curves), squeeze=False)[0], table.curves, strict=True):
        many = len(curves.lines) > MANY
        peers = [label for label in curves.lines if many and not label.startswith(OURS)]
        for label, points in curves.lines.items():
            flat = len({y for _, y in points}) == 1 and len(points) > 2
            x, y = zip(*sorted(map(tuple, points)), strict=True) if points else ((), ())
            marks = "k--" if flat else "o--" if label in peers else "o-"
            color = {"color": str(0.75 * (1 - peers.index(label) / len(peers)))} if label in peers else {}
            (line,) = axes.plot(x, y, marks, label=label, markersize=4, **color)
            if label in curves.bands:
                axes.fill_between(*zip(*sorted(curves.bands[label]), strict=True), color=line.get_color(), alpha=0.2)
        axes.set_xscale("log")
        if curves.log_y:
            axes.set_yscale("log")
        axes.set_xlabel(curves.x)
        axes.set_ylabel(curves.y)
        axes.grid(alpha=0.3)
        beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if many else {}
        axes.legend(fontsize="small", **beside)


def _draw_bars(axes: Any, table: Table) -> None:
    rows = list(reversed(table.rows))
    colors = ["tab:gray" if row.peer else "tab:blue" for row in rows]
    axes.barh([row.name for row in rows], [row.value for row in rows], xerr=_spread(rows), color=colors)
    for height, row in enumerate(rows):
        axes.annotate(plain(row.value), (0, height), (4, 0), textcoords="offset points", va="center", fontsize="small")
    axes.set_xlabel(table.unit)


def _spread(rows: list[Row]) -> list[list[float]]:
    below = [row.value - (row.value if row.low is None else row.low) for row in rows]
    above = [(row.value if row.high is None else row.high) - row.value for row in rows]
    return [[max(0.0, value) for value in side] for side in (below, above)]
