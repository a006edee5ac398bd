"""From the command to the end of the first training step on the digits, each time in a new process.

The lower bound is the import of the packages. The first step includes a validation of ten images, a checkpoint and the
files of a run.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec

from score_lightning.bench.settings import Settings
from score_lightning.bench.tables import Bound, Table, timed
from score_lightning.bench.timing import alternate

PACKAGES = ("torch", "lightning", "torchmetrics", "omegaconf", "wandb")
OVERRIDES = (
    "exp=ddpm_digits", "trainer.max_steps=1", "trainer.progress=false", "validation.n=10", "samples.n=0",
    "evaluation.n=0", "logger=off",
)  # fmt: skip


def run(settings: Settings) -> list[Table]:
    """One table."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    with tempfile.TemporaryDirectory() as out:
        train = ["-m", "score_lightning.train"]
        functions = {
            "the imports alone": _command("-c", f"import {', '.join(PACKAGES)}"),
            "train, one step": _command(*train, *OVERRIDES, f"out={out}"),
            "train --help": _command(*train, "--help"),
        }
        timings = alternate(functions, settings.repeats(5), settings.warmup(1))
    imports, first, usage = (timings[name].median for name in functions)
    bounds = {
        "train, one step": (Bound("seconds over the imports", first - imports, 3),),
        "train --help": (Bound("seconds", usage, 1),),
    }
    return [
        Table("Start-up", "s", [timed(name, t, 1, bounds=bounds.get(name, ())) for name, t in timings.items()]),
    ]


def _command(*arguments: str) -> Callable[[], None]:
    def call() -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    return call
