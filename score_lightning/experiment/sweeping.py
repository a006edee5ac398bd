"""Several trainings, one after another, and a table of their results; nothing here imports torch."""

import csv
import io
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_lightning import config
from score_lightning.errors import INTERRUPTED, RESUMABLE, UserError
from score_lightning.runtime.files import output_folder, write_text
from score_lightning.runtime.signals import SIGNALS

TABLE = "sweep.csv"


@dataclass(frozen=True)
class Training:
    """One point of a sweep.

    Args:
        label: the swept overrides, or the experiment where there are none.
        exp: the experiment.
        overrides: key=value.
        out: the folder of its runs.
    """

    label: str
    exp: str
    overrides: list[str]
    out: Path

    @property
    def arguments(self) -> list[str]:
        """The arguments of `train`."""
        return [f"exp={self.exp}", *self.overrides, f"out={self.out}"]

    def run(self) -> int:
        """Trains, or resumes; returns the exit code."""
        return run_command("train", *self.arguments, "resume=auto")

    def metrics(self) -> dict[str, str]:
        """The metrics of the newest run; empty without any."""
        runs = self.out.expanduser() / Path(self.exp).stem
        files = sorted(runs.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
        metrics = json.loads(files[-1].read_text(encoding="utf-8")) if files else {}
        return {key: f"{value:.4g}" for key, value in metrics.items() if isinstance(value, float)}


def run_command(name: str, *arguments: str) -> int:
    """Runs a command of this project and returns its exit code. Signals to this process are passed on to it."""
    process = subprocess.Popen([sys.executable, "-m", f"score_lightning.{name}", *arguments])
    before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in SIGNALS}
    try:
        return process.wait()
    except KeyboardInterrupt:  # which the command gets, too
        process.wait()
        return INTERRUPTED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_sweep(overrides: Sequence[str]) -> int:
    """Trains every point and writes sweep.csv; returns the exit code of a training that was stopped, else 0.

    Raises:
        UserError: as `plan`, and at the end when a training failed.
    """
    trainings = plan(overrides)
    with output_folder(Path(_base(overrides)).expanduser(), [TABLE]) as folder:
        rows: list[dict[str, str]] = []
        for i, training in enumerate(trainings):
            print(f"\n[{i + 1} of {len(trainings)}] {training.label}", flush=True)
            code = training.run()
            if code in (INTERRUPTED, RESUMABLE):
                return code
            state = "done" if code == 0 else f"failed ({code})"
            rows.append({"training": training.label, "state": state, **training.metrics()})
        print("\n" + "\n".join("  ".join(f"{key}={value}" for key, value in row.items()) for row in rows))
        _write_table(folder / TABLE, rows)
    print(f"\nAll results: {folder / TABLE}")
    if any(row["state"] != "done" for row in rows):
        raise UserError("not every training was finished; what went wrong stands above")
    return 0


def plan(overrides: Sequence[str]) -> list[Training]:
    """Every training: the product of all lists, each with its own folder of runs.

    Raises:
        UserError: when an override is wrong for any of them, before the first one starts.
    """
    shared, points = config.split_sweep(overrides, _is_swept)
    trainings = []
    for point in points:
        exp = dict(override.split("=", 1) for override in [*shared, *point]).get("exp")
        if exp is None:
            raise UserError(f"exp=NAME is missing; experiments: {', '.join(config.experiments())}")
        label = " ".join(point) or f"exp={exp}"
        rest = [override for override in [*shared, *point] if not override.startswith(("exp=", "out="))]
        folder = "_".join(override.replace("/", "-") for override in point if not override.startswith("exp="))
        training = Training(label, exp, rest, Path(_base(overrides)) / folder)
        config.load(training.arguments[1:], exp)
        trainings.append(training)
    return trainings


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(rows)
    write_text(path, text.getvalue())


def _base(overrides: Sequence[str]) -> str:
    """The folder of all runs."""
    return next((override[4:] for override in reversed(overrides) if override.startswith("out=")), "runs")


def _is_swept(key: str, items: list[str]) -> bool:
    """Whether a list holds one value for each training; for settings that are lists, only a list of lists does."""
    default: Any = config.defaults()
    for name in key.split("."):
        default = default.get(name) if isinstance(default, dict) else None
    return not isinstance(default, list) or any(item.startswith("[") for item in items)
