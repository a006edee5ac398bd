"""What Weights & Biases (or TensorBoard) shows of a run beyond its numbers."""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.utilities.throughput import get_available_flops, measure_flops
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image

from score_lightning.errors import StopRequested
from score_lightning.models import ScoreModel
from score_lightning.networks.layers import Block
from score_lightning.tracking.csv import MetricsLogger
from score_lightning.tracking.wandb import STEP, ResilientWandbLogger

PICTURES = {"samples/grid": "step", "samples/trajectory": "trajectory"}
"""Key of a picture -> prefix of its files' names."""


class Stopwatch(L.Callback):
    """A callback that measures training without validation, evaluation and pictures (see `untimed`)."""

    def __init__(self) -> None:
        self._excluded, self._since = 0.0, 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Stops the clock."""
        self._since = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Starts the clock again."""
        self.exclude(time.monotonic() - self._since)

    def exclude(self, seconds: float) -> None:
        """Leaves seconds in which nothing was trained out of the measured time."""
        self._excluded += seconds


class Dashboard(Stopwatch):
    """Best values in the summary, images per second, and what W&B lost of a run that was killed.

    Model FLOP utilization is the share of the device's peak that the network's forward and backward passes take, for
    devices whose peak Lightning knows. None of this goes into metrics.csv, which is the same in every run.

    Args:
        every: steps between numbers of speed.
        artifact: whether the last checkpoint is uploaded at the end.
    """

    def __init__(self, every: int, artifact: bool = False) -> None:
        super().__init__()
        self._every, self._artifact = every, artifact
        self._flops: float | None = None
        self._peak: float | None = None
        self._mark = (0, 0.0)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Defines which values are the best."""
        self._folder = Path(str(trainer.log_dir))  # rank 0 broadcasts it: every rank must ask
        for logger in _wandb(trainer):
            logger.do(_define)
        if trainer.is_global_zero and pl_module.device.type == "cuda":
            self._peak = get_available_flops(pl_module.device, _dtype(trainer))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Gives W&B what it lost of a resumed run."""
        rows = [row for log in trainer.loggers if isinstance(log, MetricsLogger) for row in log.rows]
        pictures = [
            (key, int(path.stem.rpartition("_")[2]), path)
            for key, prefix in PICTURES.items()
            for path in sorted((self._folder / "samples").glob(f"{prefix}_*.png"))
        ]
        for logger in _wandb(trainer):
            logger.restore(rows, [picture for picture in pictures if picture[1] <= trainer.global_step])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Logs the speed of training since the last time, without validation and evaluation."""
        step, loggers = trainer.global_step, _others(trainer)
        if not loggers or step % self._every or step == self._mark[0]:
            return
        now, (before, then) = time.monotonic(), self._mark
        self._mark = (step, now)
        seconds, self._excluded = now - then - self._excluded, 0.0
        if then == 0 or not trainer.is_global_zero:
            return
        images = (step - before) * trainer.accumulate_grad_batches * len(batch["images"]) * trainer.world_size
        speed = {"speed/images_per_second": images / seconds, "speed/steps_per_second": (step - before) / seconds}
        if self._peak:
            self._flops = self._flops or training_flops(pl_module.model, batch["images"].shape[1:])
            speed["speed/model_flop_utilization"] = images / seconds * self._flops / (self._peak * trainer.world_size)
        if pl_module.device.type == "cuda":
            speed["speed/peak_memory_gb"] = torch.cuda.max_memory_allocated(pl_module.device) / 1e9
        for logger in loggers:
            logger.log_metrics(speed, step=step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Uploads the last checkpoint if asked to."""
        path = self._folder / "checkpoints" / "last.ckpt"
        for logger in _wandb(trainer) if self._artifact and path.is_file() else []:
            name = f"checkpoint-{logger.version}"
            logger.do(lambda run, name=name: run.log_artifact(str(path), name=name, type="model"))  # type: ignore[misc]

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:  # noqa: ARG002
        """Marks a run that will be resumed."""
        for logger in _wandb(trainer) if isinstance(exception, StopRequested) else []:
            logger.do(lambda run: run.mark_preempting())


@contextmanager
def untimed(trainer: L.Trainer) -> Iterator[None]:
    """Leaves the time that passes inside out of the time and the speed of the training."""
    start = time.monotonic()
    yield
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Stopwatch):
            callback.exclude(time.monotonic() - start)


def show(trainer: L.Trainer, key: str, path: Path) -> None:
    """Logs a picture file to W&B and TensorBoard, on the first rank."""
    step = trainer.global_step
    for logger in trainer.loggers if trainer.is_global_zero else []:
        if isinstance(logger, ResilientWandbLogger):
            logger.log_image(key, [str(path)], step=step, caption=[f"step {step}"])
        elif isinstance(logger, TensorBoardLogger):
            with Image.open(path) as picture:
                logger.experiment.add_image(key, np.asarray(picture.convert("RGB")), step, dataformats="HWC")


def _define(run: Any) -> None:
    """The summary's best values; hides the numbers that are in a chart already."""
    lowest, highest = ("val/loss", "eval/fid_*", "eval/kid_*"), ("eval/is_*", "eval/psnr_*", "eval/ssim_*")
    for name, best in (*((name, "min") for name in lowest), *((name, "max") for name in highest)):
        run.define_metric(name, step_metric=STEP, summary=best)
    run.define_metric("val_level/*", step_metric=STEP, hidden=True)
    run.define_metric(STEP, hidden=True)


def _wandb(trainer: L.Trainer) -> list[ResilientWandbLogger]:
    """The W&B loggers, on the first rank."""
    return (
        [logger for logger in trainer.loggers if isinstance(logger, ResilientWandbLogger)]
        if trainer.is_global_zero
        else []
    )


def _others(trainer: L.Trainer) -> list[Any]:
    """All loggers but metrics.csv."""
    return [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]


def _dtype(trainer: L.Trainer) -> torch.dtype:
    dtypes = {"bf16": torch.bfloat16, "16": torch.float16}
    return dtypes.get(str(trainer.precision).partition("-")[0], torch.float32)


def training_flops(model: ScoreModel, shape: Sequence[int]) -> float:
    """Floating-point operations of a forward and a backward pass for one image of a shape, counted on device meta."""
    copied = copy.deepcopy(model).to("meta").requires_grad_(True)
    for part in copied.modules():
        if isinstance(part, Block):
            part.checkpointing = False  # what is computed again is not counted
    x, t = torch.zeros(1, *shape, device="meta"), copied.schedule.times(1).to("meta")
    return float(measure_flops(copied, lambda: copied(x, t).eps, lambda eps: eps.square().mean()))
