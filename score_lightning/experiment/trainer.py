"""A training run: its callbacks, loggers and Lightning trainer."""

import logging
import netrc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from score_lightning import config
from score_lightning.config import Resolved
from score_lightning.config.registry import part_of
from score_lightning.data.sources import Split
from score_lightning.errors import UserError
from score_lightning.evaluation.evaluator import Evaluator
from score_lightning.evaluation.reference import Reference
from score_lightning.experiment.build_evaluation import build_evaluator, build_features
from score_lightning.generation.generator import Generator
from score_lightning.runtime.files import write_text
from score_lightning.runtime.startup import is_first
from score_lightning.tracking.csv import MetricsLogger
from score_lightning.tracking.dashboard import Dashboard
from score_lightning.tracking.wandb import ResilientWandbLogger
from score_lightning.training.callbacks import Evaluate, LearningRate, SampleGrid
from score_lightning.training.checkpointing import AsyncCheckpointWriter, AtomicCheckpointIO, Checkpoints, KeepLog
from score_lightning.training.module import SHOWN


def build_callbacks(resolved: Resolved, split: Split, generator: Generator) -> list[L.Callback]:
    """All callbacks of a run.

    Raises:
        UserError: when the features of the evaluation cannot be had.
    """
    c = resolved.config
    callbacks: list[L.Callback] = [
        # first: what the others do before a step belongs to the next checkpoint
        Checkpoints(c.trainer.checkpoint_every, c.trainer.checkpoint_minutes, c.trainer.log_every),
        KeepLog(),
        LearningRate(),
        Dashboard(c.trainer.log_every, c.logger.artifact),
    ]
    if c.samples.n:
        callbacks.append(SampleGrid(generator, c.samples.n, c.seed, c.samples.every))
    evaluator = _evaluator(resolved, split)
    if evaluator is not None:
        settings = {
            "sampler": part_of(c, "preview"),
            "continuous": c.continuous,
            "labels": resolved.plain()["labels"],
            "weights": "ema",
        }
        callbacks.append(Evaluate(evaluator, generator, c.evaluation.n, c.seed, c.evaluation.every, settings))
    best = ModelCheckpoint(
        filename="best", monitor="val/loss", enable_version_counter=False, save_on_train_epoch_end=False
    )
    callbacks.append(best)
    return [*callbacks, TQDMProgressBar(SHOWN * c.trainer.accumulate)] if c.trainer.progress else callbacks


def _evaluator(resolved: Resolved, split: Split) -> Evaluator | None:
    """The evaluation during training; None without one, or where `auto` finds no features, which is said."""
    c = resolved.config
    if c.evaluation.n == 0 or c.points:
        return None
    reference = Reference(str(c.data["name"]), *split)
    try:
        features = build_features(resolved, reference)
    except UserError as error:
        if c.features["name"] != "auto":
            raise
        print(f"No evaluation during training: the data have no labels for a classifier, and {error}")
        return None
    return build_evaluator(resolved, features, reference, c.evaluation.n)


def build_trainer(resolved: Resolved, callbacks: list[L.Callback], folder: Path | None = None) -> L.Trainer:
    """Lightning's trainer, of a run that goes on in a folder or begins in the next one.

    Raises:
        UserError: when Lightning refuses the settings, processes do not divide the batch size, or another training
            writes to the folder.
    """
    c, t = resolved.config, resolved.config.trainer
    _quiet()
    with nullcontext(folder) if folder else _new_folder(Path(c.out) / Path(c.exp).stem) as place:
        for callback in callbacks if is_first() else []:
            if isinstance(callback, Checkpoints):
                callback.lock(place)
        try:
            trainer = L.Trainer(
                accelerator=t.accelerator,
                devices=int(t.devices) if t.devices.lstrip("-").isdigit() else t.devices,
                num_nodes=t.num_nodes,
                # gradients that are parts of the messages need not be copied into them
                strategy=DDPStrategy(gradient_as_bucket_view=True) if t.strategy == "ddp" else t.strategy,
                precision=t.precision,  # type: ignore[arg-type]
                logger=_loggers(resolved, place),
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
        except (
            ValueError,
            TypeError,
            RuntimeError,
            ImportError,
            L.fabric.utilities.exceptions.MisconfigurationException,
        ) as e:
            raise UserError(f"Lightning refuses the settings of trainer: {e}") from e
        ranks = trainer.world_size
        if t.batch_size % ranks:
            raise UserError(f"trainer.batch_size={t.batch_size} must be a multiple of the {ranks} processes")
        if c.validation.n < ranks:
            raise UserError(f"validation.n={c.validation.n} must be at least the number of processes, {ranks}")
        if is_first():  # before anything else: what is killed from here on goes on in this folder, as this run
            write_text(place / "config.yaml", config.to_yaml(resolved.plain()))
            for logger in trainer.loggers:
                if isinstance(logger, ResilientWandbLogger):
                    logger.keep_id()
        return trainer


@contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """The next version folder below a parent, made by the first process; gone again where what follows fails."""
    if any(p.exists() and not p.is_dir() for p in (parent, *parent.parents)):
        raise UserError(f"{parent} cannot be a folder of runs: a file is in the way (out=…)")
    version = max((int(p.name) for p in parent.glob("*") if p.name.isdigit()), default=-1) + 1
    if not is_first():
        yield parent / str(version)  # the first one tells the others which it is
        return
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    while True:
        try:
            (parent / str(version)).mkdir(parents=True)
            break
        except FileExistsError:  # of another training that begins now
            version += 1
    try:
        yield parent / str(version)
    except UserError:
        for path in (parent / str(version), *missing):
            with suppress(OSError):  # others may have begun there
                path.rmdir()
        raise


def _loggers(resolved: Resolved, folder: Path) -> list[Logger]:
    c = resolved.config
    loggers: list[Logger] = [MetricsLogger(folder.parent.parent, folder.parent.name, folder.name)]
    mode = _wandb_mode(c.logger.wandb)
    if mode != "off":
        loggers.append(
            ResilientWandbLogger(
                folder,
                name=f"{folder.parent.name}/{folder.name}",
                project=c.logger.project,
                mode=mode,
                config=resolved.plain(),
            )
        )
    if c.logger.tensorboard:
        try:
            loggers.append(TensorBoardLogger(folder.parent.parent, folder.parent.name, folder.name))
        except ModuleNotFoundError as error:
            raise UserError("logger.tensorboard needs one more package: pip install tensorboard") from error
    return loggers


def _wandb_mode(setting: str) -> str:
    keyed = bool(os.environ.get("WANDB_API_KEY")) or _in_netrc("api.wandb.ai")
    if setting == "online" and not keyed:
        raise UserError("logger.wandb=online needs a key: run `wandb login`, or take logger.wandb=auto or offline")
    if setting != "auto":
        return setting
    mode = os.environ.get("WANDB_MODE")
    if mode:
        return {"disabled": "off", "dryrun": "offline"}.get(mode, mode)
    return "online" if keyed else "offline"


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _quiet() -> None:
    """Keeps Lightning's advice and what does not concern this project's runs off the screen."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*in eval mode at the start of training.*",  # the averaged weights
        ".*your dataloader is not resumable.*",  # its order is: ImageData starts it at the right step
        ".*The dirpath has changed.*",
        ".*when using `ckpt_path`, callbacks.*",  # another evaluation than before is no mistake
        ".*exists and is not empty.*",  # config.yaml is in the run folder before the first metric
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message)
