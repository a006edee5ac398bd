"""Results of measurements: rows with quartiles, ratios and bounds, as Markdown and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from score_lightning.bench.timing import Timing


class LeftOut(Exception):  # noqa: N818 - no error
    """Raised by a suite that cannot be run here, with the reason."""


@dataclass(frozen=True)
class Bound:
    """An upper limit of a number, or with `least` a lower one.

    Args:
        what: name of the number.
        value: as measured.
        limit: which the value must keep to.
        least: whether the limit is the smallest allowed value.
    """

    what: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value is within the limit."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.least else "≤"
        return f"{self.what} {plain(self.value)} {sign} {plain(self.limit)}: {'met' if self.met else '**not met**'}"


@dataclass(frozen=True)
class Row:
    """A number with its quartiles.

    Args:
        name: of what was measured.
        value: the median.
        low, high: the quartiles, where there were repetitions.
        peer: whether it is another project's.
        same: whether it does the same work as ours, so that the ratio is meaningful.
        note: shown in the last column.
        bounds: limits that are to be met.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    peer: bool = False
    same: bool = True
    note: str = ""
    bounds: tuple[Bound, ...] = ()


def timed(name: str, timing: Timing, scale: float = 1e3, **settings: Any) -> Row:
    """A row of durations, in milliseconds unless the scale says otherwise."""
    low, high = timing.quartiles
    return Row(name, scale * timing.median, scale * low, scale * high, **settings)


def rate(name: str, timing: Timing, amount: float, **settings: Any) -> Row:
    """A row of `amount` of work per second."""
    low, high = timing.quartiles
    return Row(name, amount / timing.median, amount / high, amount / low, **settings)


@dataclass(frozen=True)
class Curves:
    """Lines over an axis: label -> points (x, y); and bands around them: label -> (x, lowest y, highest y)."""

    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_y: bool = False
    bands: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Rows of one unit.

    Args:
        title: above the table.
        unit: of its values.
        rows: in order.
        more: whether larger values are better.
        note: below the table.
        curves: drawn instead of bars.
        spread: what the numbers beside each value are.
    """

    title: str
    unit: str
    rows: Sequence[Row]
    more: bool = False
    note: str = ""
    curves: Sequence[Curves] = field(default_factory=list)
    spread: str = "quartiles"

    @property
    def fastest(self) -> Row | None:
        """The best of the peers that do the same work, or of all peers if none does."""
        peers = [row for row in self.rows if row.peer]
        equal = [row for row in peers if row.same] or peers
        return (max if self.more else min)(equal, key=lambda row: row.value, default=None)

    def ratio(self, row: Row) -> float | None:
        """A row's value over that of the fastest peer."""
        return None if self.fastest is None else row.value / self.fastest.value

    def markdown(self) -> str:
        """The table in Markdown, without empty columns."""
        head = ["", self.unit, self.spread, "ratio to the fastest peer", "bound", "note"]
        cells = [self._cells(row) for row in self.rows]
        kept = [i for i in range(len(head)) if any(row[i] for row in cells)]
        lines = [[head[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in cells)]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join(part for part in (f"### {self.title}", table, self.note) if part)

    def plain(self) -> dict[str, Any]:
        """The table as dicts, lists, strings and numbers."""
        rows = [{**asdict(row), "ratio": self.ratio(row)} for row in self.rows]
        return {**asdict(self), "rows": rows}

    def _cells(self, row: Row) -> list[str]:
        quartiles = "" if row.low is None or row.high is None else f"{plain(row.low)} to {plain(row.high)}"
        ratio = self.ratio(row)
        bounds = "; ".join(map(str, row.bounds))
        return [row.name, plain(row.value), quartiles, "" if ratio is None else f"{ratio:.2f}", bounds, row.note]


def read(table: Mapping[str, Any]) -> Table:
    """The table of `Table.plain`'s data."""
    rows = [
        Row(
            **{key: v for key, v in row.items() if key != "ratio"}
            | {"bounds": tuple(Bound(**b) for b in row["bounds"])}
        )
        for row in table["rows"]
    ]
    return Table(**{**table, "rows": rows, "curves": [Curves(**c) for c in table["curves"]]})


def plain(value: float) -> str:
    """A number with three significant digits, or all of those before the decimal point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
