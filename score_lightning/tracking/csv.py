"""metrics.csv, the log of a run, whose rows its checkpoints keep."""

import csv
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

LOG = "metrics.csv"


class MetricsLogger(CSVLogger):
    """Lightning's metrics.csv, with its rows in memory.

    Attributes:
        rows: all that was logged, each with its step.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rows: list[dict[str, Any]] = []

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row, without Lightning's epoch: there is one only."""
        plain = {k: v.item() if hasattr(v, "item") else v for k, v in metrics.items() if k != "epoch"}
        super().log_metrics(plain, step)
        self.rows.append({**plain, "step": step})

    def save(self) -> None:
        """Writes the file if that is possible; a full disk is reported when a checkpoint is due."""
        with suppress(OSError):
            super().save()

    def write(self) -> None:
        """Writes the file.

        Raises:
            OSError: when it cannot be written.
        """
        super().save()

    @rank_zero_only
    def restore(self, rows: list[dict[str, Any]]) -> None:
        """Starts from rows that were logged before; the file is written anew."""
        self.rows = list(rows)
        for row in rows:
            super().log_metrics({name: value for name, value in row.items() if name != "step"}, row["step"])
        self.save()


def read_log(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> [(step, value)] of everything in a run's metrics.csv."""
    log: dict[str, list[tuple[int, float]]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name != "step":
                    log.setdefault(name, []).append((int(row["step"]), float(value)))
    return log


def read_losses(path: Path) -> list[tuple[int, float]]:
    """(step, training loss) of a run's metrics.csv."""
    return read_log(path).get("train/loss", [])
