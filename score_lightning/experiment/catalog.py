"""The experiments that come with the project, and those of the working directory, as rows of a table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from score_lightning import config
from score_lightning.config.registry import find_constructor
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.shapes import data_shape

HEAD = ("experiment", "data", "parameters", "method", "published")


@dataclass(frozen=True)
class Row:
    """One experiment.

    Args:
        name: of the file in experiments/; of a user's own behind ./experiments/.
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


def describe(name: str) -> Row:
    """An experiment, by its file alone: no data are read, and the network takes no memory.

    Raises:
        UserError: when it cannot be built.
    """
    resolved = config.load([], name)
    c, experiment = resolved.config, Experiment(resolved)
    net = experiment.build_net("meta")
    if name in config.own_experiments():  # those of the project are sound
        _ = experiment.with_prediction(net), experiment.objective, experiment.sampler, experiment.preview_sampler
        if not c.points:
            find_constructor(resolved, "data")
    parameters = sum(p.numel() for p in net.parameters())
    source, shape = str(c.data.get("category", c.data.get("set", c.data.get("name", "no data")))), data_shape(c)
    data = f"{source}, {c.points}-D" if c.points else f"{source} {shape[1]} x {shape[2]}"
    path = config.find_experiment(name)
    own = config.show(path).removesuffix(".yaml") if name in config.own_experiments() else name
    return Row(own, data, parameters, *read_comment(path))


def read_comment(path: Path) -> tuple[str, str]:
    """(method, published result) of the comment that an experiment's file starts with.

    The method is its first sentence, without what stands in parentheses; the result a line "Published: …".
    """
    comment = re.match(r"(#.*\n)*", path.read_text(encoding="utf-8"))
    lines = [line.removeprefix("#").strip() for line in comment[0].splitlines()] if comment else []
    method = re.sub(r" \([^)]*\)", "", " ".join(lines)).partition(". ")[0].rstrip(".")
    published = [line.removeprefix("Published: ").rstrip(".") for line in lines if line.startswith("Published: ")]
    return method, published[0] if published else ""


def table(names: Sequence[str]) -> str:
    """The rows of some experiments below a head, in aligned columns; a user's own come first.

    Below them is said what is wrong with those of the user's own that cannot be built.
    """
    own, rows, broken = set(config.own_experiments()), [], []
    for name in sorted(names, key=lambda name: (name not in own, name)):
        try:
            rows.append(describe(name))
        except UserError as error:
            if name not in own:
                raise
            broken.append(f"{config.show(config.find_experiment(name))} cannot be built: {error}")
    cells = [HEAD, *((row.name, row.data, f"{row.parameters:,}", row.method, row.published) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligns = [str.rjust if name == "parameters" else str.ljust for name in HEAD]
    lines = ([align(cell, width) for align, cell, width in zip(aligns, row, widths, strict=True)] for row in cells)
    return "\n".join([*("  ".join(line).rstrip() for line in lines), *broken])
