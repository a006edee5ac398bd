"""A training run: its callbacks, loggers and Lightning trainer."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry

from score_lightning import config
from score_lightning.config.registry import part_of
from score_lightning.errors import UserError, missing_package
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.evaluation import Evaluation, NoFeaturesError
from score_lightning.experiment.loading import condition_settings
from score_lightning.generation.pictures import class_captions
from score_lightning.objectives import Consistency, ImportanceSampled
from score_lightning.runtime.files import output_folder, write_text
from score_lightning.runtime.processes import check_address, placement
from score_lightning.runtime.signals import end_at_signals
from score_lightning.runtime.startup import is_first
from score_lightning.tracking.csv import MetricsLogger
from score_lightning.tracking.dashboard import Dashboard
from score_lightning.tracking.modes import wandb_mode
from score_lightning.tracking.wandb import ResilientWandbLogger
from score_lightning.training.callbacks import PeriodicEvaluation, SampleGrid
from score_lightning.training.checkpoint_io import AsyncCheckpointWriter, AtomicCheckpointIO
from score_lightning.training.checkpointing import Checkpoints, CheckpointTimes, LogKeeper
from score_lightning.training.record import RunRecord
from score_lightning.training.step_callbacks import (
    SHOWN,
    LearningRate,
    LossObserver,
    NetworkCompiler,
    TrainingLoss,
    TrainingProgress,
)


class InterruptibleDDP(DDPStrategy):
    """Lightning's DDP, which signals can stop while its processes wait for each other."""

    def setup_environment(self) -> None:
        """Connects the processes.

        Raises:
            UserError: when the first one cannot be reached; it ends the others.
        """
        try:
            with end_at_signals():
                super().setup_environment()
        except torch.distributed.DistNetworkError as error:
            if not is_first():
                raise
            raise UserError(f"the processes cannot connect: {str(error).splitlines()[0]}") from error


# strategy=auto takes it, too; gradients that are views of DDP's buckets need not be copied into them
StrategyRegistry.register("ddp", InterruptibleDDP, override=True, gradient_as_bucket_view=True)


def build_callbacks(experiment: Experiment) -> list[L.Callback]:
    """All callbacks of a training run.

    Raises:
        UserError: when the features of the evaluation are not available.
    """
    c, t = experiment.config, experiment.config.trainer
    times = CheckpointTimes(t.checkpoint_every, t.checkpoint_minutes, t.log_every)
    callbacks: list[L.Callback] = [
        # first: what the others do before a step belongs to the next checkpoint
        Checkpoints(times),
        LogKeeper(),
        RunRecord(),
        LearningRate(),
        TrainingLoss(),
    ]
    if wandb_mode(c.logger.wandb) != "off" or c.logger.tensorboard:
        callbacks.append(Dashboard(t.log_every, c.logger.artifact))
    if isinstance(experiment.objective, ImportanceSampled):
        callbacks.append(LossObserver(experiment.objective))
    if isinstance(experiment.objective, Consistency):
        callbacks.append(TrainingProgress(experiment.objective))
    if t.compile:
        callbacks.append(NetworkCompiler())
    if c.samples.n:
        captions = class_captions(experiment.classes, c.samples.n)
        generator = experiment.preview
        if experiment.condition is not None:
            generator = replace(generator, conditions=experiment.conditions(experiment.split[1]))
        callbacks.append(SampleGrid(generator, c.samples.n, c.seed, c.samples.every, captions))
    if c.evaluation.n and not c.points:
        callbacks += _evaluation(experiment)
    best = ModelCheckpoint(
        filename="best", monitor="val/loss", enable_version_counter=False, save_on_train_epoch_end=False
    )
    callbacks.append(best)
    return [*callbacks, TQDMProgressBar(SHOWN * t.accumulate)] if t.progress else callbacks


def _evaluation(experiment: Experiment) -> list[L.Callback]:
    """The evaluation during training; none, with a message, where `auto` has no features."""
    c = experiment.config
    evaluation = Evaluation(experiment, n=c.evaluation.n)
    try:
        evaluator = evaluation.evaluator
    except NoFeaturesError as error:
        if c.features["name"] != "auto":
            raise
        print(f"No evaluation during training: the data have no labels for a classifier, and {error}")
        return []
    settings = {
        "sampler": part_of(c, "preview"),
        "continuous": c.continuous,
        "labels": experiment.resolved.plain()["labels"],
        **condition_settings(experiment),
        "weights": "ema",
    }
    generator = replace(experiment.preview, conditions=evaluation.conditions)
    return [PeriodicEvaluation(evaluator, generator, c.evaluation.n, c.seed, c.evaluation.every, settings)]


def build_trainer(experiment: Experiment, callbacks: list[L.Callback], folder: Path | None = None) -> L.Trainer:
    """Lightning's trainer, of a run that resumes in a folder or starts in the next one.

    Raises:
        UserError: when Lightning refuses the settings, they contradict torchrun or SLURM, the processes cannot connect
            or do not divide the batch size, or another training writes to the folder.
    """
    c, t = experiment.config, experiment.config.trainer
    _quiet()
    with output_folder(folder) if folder else _new_folder(Path(c.out) / Path(c.exp).stem) as place:
        for callback in callbacks if is_first() else []:
            if isinstance(callback, Checkpoints):
                callback.lock.acquire(place)
        trainer = _lightning_trainer(experiment, callbacks, place)
        ranks = trainer.world_size
        if ranks > 1:
            check_address()
        if t.batch_size % ranks:
            raise UserError(f"trainer.batch_size={t.batch_size} must be a multiple of the {ranks} processes")
        if c.validation.n < ranks:
            raise UserError(f"validation.n={c.validation.n} must be at least the number of processes, {ranks}")
        if is_first():  # before anything else: what is killed from here on resumes in this folder, as this run
            write_text(place / "config.yaml", config.to_yaml(experiment.resolved.plain()))
            for logger in trainer.loggers:
                if isinstance(logger, ResilientWandbLogger):
                    logger.keep_id()
        return trainer


def _lightning_trainer(experiment: Experiment, callbacks: list[L.Callback], folder: Path) -> L.Trainer:
    c, t = experiment.config, experiment.config.trainer
    devices, machines = placement(t.devices, t.num_nodes, "trainer.")
    try:
        return L.Trainer(
            accelerator=t.accelerator,
            devices=int(devices) if devices.lstrip("-").isdigit() else devices,
            num_nodes=machines,
            strategy=t.strategy,
            precision=t.precision,  # type: ignore[arg-type]
            logger=_loggers(experiment, folder),
            callbacks=callbacks,
            plugins=[AsyncCheckpointWriter(AtomicCheckpointIO(t.keep))],
            max_steps=t.max_steps,
            max_epochs=-1,
            accumulate_grad_batches=t.accumulate,
            gradient_clip_val=c.optimizer.clip,
            val_check_interval=min(c.validation.every, t.max_steps) * t.accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=min(t.log_every, t.max_steps),
            enable_progress_bar=t.progress,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise UserError(f"Lightning refuses the settings of trainer: {error}") from error


@contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """The next version folder below a parent, made by the first process; removed where what follows fails."""
    if any(p.exists() and not p.is_dir() for p in (parent, *parent.parents)):
        raise UserError(f"{parent} cannot be a folder of runs: a file is in the way (out=…)")
    version = max((int(p.name) for p in parent.glob("*") if p.name.isdigit()), default=-1) + 1
    if not is_first():
        yield parent / str(version)  # the first one broadcasts which it is
        return
    with output_folder(parent):
        while True:
            try:
                (parent / str(version)).mkdir(parents=True)
                break
            except FileExistsError:  # another training starts now
                version += 1
        try:
            yield parent / str(version)
        except (UserError, OSError):
            with suppress(OSError):
                (parent / str(version)).rmdir()
            raise


def _loggers(experiment: Experiment, folder: Path) -> list[Logger]:
    c = experiment.config
    loggers: list[Logger] = [MetricsLogger(folder.parent.parent, folder.parent.name, folder.name)]
    mode = wandb_mode(c.logger.wandb)
    if mode != "off":
        loggers.append(
            ResilientWandbLogger(
                folder,
                name=f"{folder.parent.name}/{folder.name}",
                project=c.logger.project,
                mode=mode,
                config=experiment.resolved.plain(),
            )
        )
    if c.logger.tensorboard:
        try:
            loggers.append(TensorBoardLogger(folder.parent.parent, folder.parent.name, folder.name))
        except ModuleNotFoundError as error:
            raise missing_package("logger.tensorboard", "tensorboard", "tensorboard") from error
    return loggers


def _quiet() -> None:
    """Silences Lightning's advice that does not apply to this project's runs."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*in eval mode at the start of training.*",  # the averaged weights
        ".*your dataloader is not resumable.*",  # ImageData starts at the right step
        ".*The dirpath has changed.*",
        ".*when using `ckpt_path`, callbacks.*",  # another evaluation than before is no mistake
        ".*exists and is not empty.*",  # config.yaml is in the run folder before the first metric
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message)
