"""Lists the experiments: python -m score_lightning.experiments."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from score_lightning import cli, config
from score_lightning.errors import UserError


@dataclass(frozen=True)
class Experiment:
    """One row of the list.

    Args:
        name: of the file in experiments/.
        data: what it trains on.
        parameters: of its network, frozen ones included.
        method: what its file's first comment says.
        published: the result that was published, and where; empty without one.
    """

    name: str
    data: str
    parameters: int
    method: str
    published: str


def usage() -> str:
    """The text of --help."""
    return """python -m score_lightning.experiments [NAME …]

Lists the experiments whose names begin so, or all: data, parameters of the network, method, published result."""


def main(words: Sequence[str]) -> None:
    """Prints the list."""
    names = [name for name in config.experiments() if not words or name.startswith(tuple(words))]
    if not names:
        raise UserError(f"no experiment begins with {' or '.join(words)}; there are {', '.join(config.experiments())}")
    rows = [describe(name) for name in names]
    print(_table(["experiment", "data", "parameters", "method", "published"], [_cells(row) for row in rows]))


def describe(name: str) -> Experiment:
    """An experiment, by its file alone: no data are read, and the network takes no memory."""
    from score_lightning.experiment.build import build_net

    resolved = config.load([], name)
    c = resolved.config
    parameters = sum(p.numel() for p in build_net(resolved, "meta").parameters())
    source = str(c.data.get("category", c.data.get("set", c.data["name"])))
    data = f"{source}, {c.points}-D" if c.points else f"{source} {c.images.size} x {c.images.size}"
    method, published = read_comment(config.find_experiment(name))
    return Experiment(name, data, parameters, method, published)


def read_comment(path: Path) -> tuple[str, str]:
    """(method, published result) of the comment that an experiment's file begins with.

    The method is its first sentence, without what stands in parentheses; the result a line that begins so.
    """
    comment = re.match(r"(#.*\n)*", path.read_text())
    lines = [line.removeprefix("#").strip() for line in comment[0].splitlines()] if comment else []
    method = re.sub(r" \([^)]*\)", "", " ".join(lines)).partition(". ")[0].rstrip(".")
    published = [line.removeprefix("Published: ").rstrip(".") for line in lines if line.startswith("Published: ")]
    return method, published[0] if published else ""


def _cells(row: Experiment) -> list[str]:
    return [row.name, row.data, f"{row.parameters:,}", row.method, row.published]


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    right = head.index("parameters")
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i == right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    )


if __name__ == "__main__":
    cli.run(main, usage)
