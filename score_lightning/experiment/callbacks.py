"""The callbacks of a training run, in the order in which they act."""

from dataclasses import replace

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from score_lightning.config.registry import part_of
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.evaluation import Evaluation, NoFeaturesError
from score_lightning.experiment.loading import condition_settings
from score_lightning.generation.pictures import class_captions
from score_lightning.objectives import Consistency, ImportanceSampled
from score_lightning.tracking.dashboard import Dashboard
from score_lightning.tracking.modes import wandb_mode
from score_lightning.training.callbacks import PeriodicEvaluation, SampleGrid
from score_lightning.training.checkpointing import Checkpoints, CheckpointTimes, LogKeeper
from score_lightning.training.record import RunRecord
from score_lightning.training.report import TrainingReport
from score_lightning.training.step_callbacks import (
    SHOWN,
    LearningRate,
    LossObserver,
    NetworkCompiler,
    TrainingLoss,
    TrainingProgress,
)


def build_callbacks(experiment: Experiment) -> list[L.Callback]:
    """All callbacks of a training run.

    Raises:
        UserError: when the features of the evaluation are not available.
    """
    c, t = experiment.config, experiment.config.trainer
    times = CheckpointTimes(t.checkpoint_every, t.checkpoint_minutes, t.log_every)
    record = RunRecord()
    callbacks: list[L.Callback] = [
        # first: what the others do before a step belongs to the next checkpoint
        Checkpoints(times),
        LogKeeper(),
        record,
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
    evaluation = _evaluation(experiment) if c.evaluation.n and not c.points else []
    every = c.evaluation.every if evaluation else None
    callbacks += [*evaluation, TrainingReport(every or (c.samples.every if c.samples.n else None), record)]
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
