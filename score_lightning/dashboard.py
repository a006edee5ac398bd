"""What Weights & Biases (or TensorBoard) shows of a run beyond its numbers; a lost connection never stops one."""

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.throughput import get_available_flops, measure_flops
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from score_lightning.models import ScoreModel

IDENTITY = "wandb_id.txt"
"""The file of a run folder that holds the run's identity at Weights & Biases."""


class PatientWandb(WandbLogger):
    """A W&B logger that goes on offline where the server cannot be reached or refuses the key."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run."""
        try:
            return super().experiment
        except Exception as error:  # wandb raises almost anything here
            if self._offline:
                raise
            reason = str(error).splitlines()[0]
            print(f"Weights & Biases is not reached ({reason}): the run is logged offline; `wandb sync` sends it later")
            self._offline = True
            return super().experiment


class Dashboard(L.Callback):
    """Best values in the summary, the loss by noise level as a chart, images per second, the run's identity.

    Model FLOP utilization is the share of the device's peak that the network's forward and backward passes take; it is
    there for devices whose peak Lightning knows. Nothing of it goes into metrics.csv, which is the same in every run.

    Args:
        every: steps between numbers of speed.
        artifact: whether the last checkpoint is uploaded at the end.
    """

    def __init__(self, every: int, artifact: bool = False) -> None:
        self._every, self._artifact = every, artifact
        self._flops: float | None = None
        self._peak: float | None = None
        self._mark = (0, 0.0)
        self._away = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Says which values are the best, and keeps the run's identity."""
        self._folder = Path(str(trainer.log_dir))  # which rank 0 tells the others: all must ask
        for logger in _wandb(trainer):
            run = logger.experiment
            for name, best in (("val/loss", "min"), ("eval/fid_*", "min"), ("eval/kid_*", "min"), ("eval/is_*", "max")):
                run.define_metric(name, step_metric="trainer/global_step", summary=best)
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / IDENTITY).write_text(f"{run.id}\n")
        if trainer.is_global_zero and pl_module.device.type == "cuda":
            self._peak = get_available_flops(pl_module.device, _dtype(trainer))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Logs the speed since the last time, without validations."""
        step, loggers = trainer.global_step, _others(trainer)
        if not loggers or step % self._every or step == self._mark[0]:
            return
        now, (before, then) = time.monotonic(), self._mark
        self._mark = (step, now)
        seconds, self._away = now - then - self._away, 0.0
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

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Stops the clock."""
        self._since = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Draws the loss by noise level."""
        self._away += time.monotonic() - self._since
        rows = [
            [float(name.rsplit("/", 1)[1]), value.item()]
            for name, value in sorted(trainer.callback_metrics.items())
            if name.startswith("val_level/")
        ]
        for logger in _wandb(trainer) if rows else []:
            import wandb

            table = wandb.Table(data=rows, columns=["time", "loss"])
            chart = wandb.plot.line(table, "time", "loss", title="validation loss by time")
            logger.experiment.log({"val/by_level": chart, "trainer/global_step": trainer.global_step})

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Uploads the checkpoint where that was asked for."""
        path = self._folder / "checkpoints" / "last.ckpt"
        for logger in _wandb(trainer) if self._artifact and path.is_file() else []:
            logger.experiment.log_artifact(str(path), name=f"checkpoint-{logger.experiment.id}", type="model")


def _wandb(trainer: L.Trainer) -> list[WandbLogger]:
    """The W&B loggers, on the first rank."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)] if trainer.is_global_zero else []


def _others(trainer: L.Trainer) -> list[Any]:
    """All loggers but metrics.csv."""
    return [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]


def _dtype(trainer: L.Trainer) -> torch.dtype:
    precision = str(trainer.precision)
    return (
        torch.bfloat16
        if precision.startswith("bf16")
        else torch.float16
        if precision.startswith("16")
        else torch.float32
    )


def training_flops(model: ScoreModel, shape: Sequence[int]) -> float:
    """Floating-point operations of a forward and a backward pass for one image of a shape; nothing is computed."""
    copied = copy.deepcopy(model).to("meta").requires_grad_(True)
    x, t = torch.zeros(1, *shape, device="meta"), copied.schedule.times(1).to("meta")
    return float(measure_flops(copied, lambda: copied(x, t).eps, lambda eps: eps.square().mean()))
