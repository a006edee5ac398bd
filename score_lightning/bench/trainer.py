"""Lightning's training loop as built by `train`, with data, logging and callbacks, against the bare step in a loop.

Validation, sampling and checkpoints, every few thousand steps of a run, are not part of the measured steps.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from score_lightning.bench import ours
from score_lightning.bench.settings import Settings, Size, sizes
from score_lightning.bench.tables import Bound, Row, Table, timed
from score_lightning.bench.timing import Timing, alternate, wait
from score_lightning.config import Resolved, load
from score_lightning.data.images import ImageSet
from score_lightning.experiment.callbacks import build_callbacks
from score_lightning.experiment.trainer import build_trainer
from score_lightning.experiment.training_experiment import TrainingExperiment


class Stopwatch(L.Callback):
    """Notes when each batch ends.

    Args:
        warmup: first batches that do not count.
    """

    def __init__(self, warmup: int = 1) -> None:
        self.marks: list[float] = []
        self._warmup = warmup

    def on_train_batch_end(self, *_: Any) -> None:
        """Notes the time."""
        wait()
        self.marks.append(time.perf_counter())

    @property
    def seconds_per_step(self) -> float:
        """The mean over all steps that count."""
        marks = self.marks[self._warmup - 1 :]
        return (marks[-1] - marks[0]) / (len(marks) - 1)


def run(settings: Settings) -> list[Table]:
    """A table for both networks."""
    rows = [row for size in sizes(settings) for row in _rows(size, settings)]
    return [Table("A step of an epoch", "ms", rows)]


def configure(size: Size, steps: int, out: Path, *overrides: str) -> Resolved:
    """The configuration of a short run, without samples and evaluation."""
    return load(
        [
            *size.overrides, f"trainer.max_steps={steps}", f"trainer.batch_size={size.batch}", "trainer.progress=false",
            "trainer.precision=32-true", "samples.n=0", "evaluation.n=0", "validation.n=10", "logger=off",
            f"out={out}", *overrides,
        ],
        size.exp,
    )  # fmt: skip


def fit(resolved: Resolved, images: torch.Tensor, warmup: int = 1) -> float:
    """Seconds of a step in a whole training, but for the first ones."""
    experiment = TrainingExperiment(resolved, split=(ImageSet(images), ImageSet(images[:10])))
    stopwatch = Stopwatch(warmup)
    trainer = build_trainer(experiment, [*build_callbacks(experiment), stopwatch])
    trainer.fit(experiment.module, experiment.data)
    return stopwatch.seconds_per_step


def _rows(size: Size, settings: Settings) -> list[Row]:
    steps = 4 if settings.quick else 12 if size.exp == "ddpm_cifar" else 100
    images = size.images(max(1000, size.batch))
    with tempfile.TemporaryDirectory() as out:
        resolved = configure(size, steps, Path(out), f"trainer.accelerator={settings.device.replace('cuda', 'gpu')}")
        functions: dict[str, Callable[[], float]] = {
            "the bare step": lambda: _bare(size, resolved, steps, settings.device),
            "Lightning's loop": lambda: fit(resolved, images),
        }
        timings = alternate(functions, settings.repeats(3 if size.exp == "ddpm_cifar" else 15), 0)
    bare, loop = (timings[name] for name in functions)
    # pair by pair, since the speed of the machine may vary between pairs
    overhead = Timing(tuple(100 * (b / a - 1) for a, b in zip(bare.seconds, loop.seconds, strict=True))).median
    return [
        timed(f"{size.title}: the bare step", bare),
        timed(f"{size.title}: Lightning's loop", loop, bounds=(Bound("overhead in %", overhead, 3),)),
    ]


def _bare(size: Size, resolved: Resolved, steps: int, device: str) -> float:
    step = ours.build_step(
        size, resolved.config.trainer.precision, device, TrainingExperiment(resolved).module.to(device)
    )
    stopwatch = Stopwatch()
    for _ in itertools.repeat(None, steps):
        step()
        stopwatch.on_train_batch_end()
    return stopwatch.seconds_per_step
