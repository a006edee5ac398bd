"""A training run from its configuration to its summary."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import Dataset

from score_lightning import config
from score_lightning.config import Parts, Resolved
from score_lightning.data.datasets import from_dataset
from score_lightning.data.images import ImageSet
from score_lightning.data.sources import Split, hold_out
from score_lightning.data.summary import announce
from score_lightning.errors import UserError
from score_lightning.evaluation.page import PAGE
from score_lightning.experiment.callbacks import build_callbacks
from score_lightning.experiment.checks import check_attention
from score_lightning.experiment.resume import Start, check_resumed, find_newest, initialize, resume_from
from score_lightning.experiment.shapes import picture_shape
from score_lightning.experiment.trainer import build_trainer
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.experiment.unused import say_replaced, say_unused
from score_lightning.figures import FIGURES, Trained, check_figure
from score_lightning.runtime.processes import bf16_units, find_device
from score_lightning.runtime.signals import stop_at_signals
from score_lightning.runtime.startup import end_with_launcher
from score_lightning.tracking.csv import LOG, read_losses
from score_lightning.training.callbacks import PeriodicEvaluation, run_folder
from score_lightning.training.report import draw_report


def train(options: dict[str, Any], overrides: Sequence[str], parts: Parts | None = None) -> None:
    """Trains what the options exp, resume and dry_run and key=value overrides of the configuration ask for.

    Args:
        options, overrides: as on the command line.
        parts: of the user's own, which the configuration may name.

    Raises:
        UserError: for a mistake in them, before anything is trained where it can be noticed then.
    """
    experiment, start = _resolve(options, overrides, parts)
    resolved = experiment.resolved
    say_unused(resolved, "train")
    say_replaced(resolved)
    if start.done and (resolved.figure.name is None or (start.folder / "figure.png").exists()):  # type: ignore[operator]
        print(f"{start.checkpoint} has done all its steps: trainer.max_steps=N adds more")
        return
    if resolved.figure.name is not None:
        check_figure(resolved.figure, resolved.config)
    _prepare(experiment, start)
    variants = _plan_variants(experiment)
    if options.get("dry_run"):
        print(config.to_yaml(resolved.plain()))
        print(f"parameters: {sum(p.numel() for p in experiment.model.parameters())}")
        return
    if start.done:  # stopped before its figure was drawn
        experiment.module.load_state_dict((start.contents or {})["state_dict"])
    folder = start.folder if start.done and start.folder else fit(experiment, start)
    if resolved.figure.name is not None:
        _draw(experiment, variants, folder)


def train_on(
    images: Dataset[Any],
    validation: Dataset[Any] | float = 0.05,
    *,
    exp: str,
    overrides: Sequence[str] = (),
    resume: str | None = None,
    parts: Parts | None = None,
) -> Path:
    """Trains an experiment on images given in Python, and returns the run folder.

    With several devices the processes are started by running the calling script again.

    Args:
        images: an `ImageSet`, or a data set that `from_dataset` reads.
        validation: those for the validation loss, or the share of the images that is held out, 0 for none.
        exp: name or path of the experiment.
        overrides: key=value, as on the command line, of anything but data.
        resume: `auto`, or the path of a checkpoint, as on the command line.
        parts: of the user's own, which the configuration may name.

    Raises:
        UserError: for a mistake in them, before anything is trained where it can be noticed then.
        StopRequested: when a signal has stopped the training; its state is saved.
    """
    end_with_launcher()
    with stop_at_signals():
        given = [word for word in overrides if re.match(r"data\b", word)]
        if given:
            raise UserError(f"train_on is given its images: leave out {given[0]}")
        experiment = _experiment(config.load([*overrides, "data=python"], exp), parts)
        split = _split(images, validation, experiment)
        experiment = TrainingExperiment(experiment.resolved, split, parts=parts)
        new = Start() if resume in (None, "auto") else resume_from(str(resume))
        start = find_newest(experiment) if resume == "auto" else new
        say_unused(experiment.resolved, "train")
        if start.done and start.folder is not None:
            return start.folder
        _prepare(experiment, start)
        return fit(experiment, start)


def _split(images: Dataset[Any], validation: Dataset[Any] | float, experiment: TrainingExperiment) -> Split:
    """Training and validation images as an experiment takes them."""
    c = experiment.config
    if c.points > 0:
        raise UserError(f"exp={c.exp} is of points: train_on takes an experiment of images")
    shape = picture_shape(c.images)
    read = lambda data: data if isinstance(data, ImageSet) else from_dataset(data, shape)  # noqa: E731
    train = read(images)
    return hold_out(train, validation) if isinstance(validation, float | int) else (train, read(validation))


def _resolve(
    options: dict[str, Any], overrides: Sequence[str], parts: Parts | None
) -> tuple[TrainingExperiment, Start]:
    """The experiment of a run, and where it starts."""
    exp, resume = options.get("exp"), options.get("resume")
    if resume == "auto":
        if exp is None:
            raise UserError(f"resume=auto needs exp=NAME; experiments: {', '.join(config.experiments())}")
        experiment = _experiment(config.load(overrides, exp), parts)
        return experiment, find_newest(experiment)
    start = Start() if resume is None else resume_from(resume)
    if start.contents is not None and any(override.startswith("init=") for override in overrides):
        raise UserError("resume continues with the weights of its training: leave out init")
    if exp is not None:
        return _experiment(config.load(overrides, exp), parts), start
    if start.contents is None:
        raise UserError(f"exp=NAME is missing; experiments: {', '.join(config.experiments())} (--help lists all keys)")
    resolved = config.change(start.contents["config"], str(resume), overrides)
    if resolved.config.exp in config.experiments():
        resolved = replace(resolved, figure=config.load([], resolved.config.exp).figure)
    return _experiment(resolved, parts), start


def _experiment(resolved: Resolved, parts: Parts | None) -> TrainingExperiment:
    return TrainingExperiment(choose_precision(resolved), parts=parts)


def _prepare(experiment: TrainingExperiment, start: Start) -> None:
    """Checks all of a training but its data."""
    _ = experiment.module, experiment.preview
    if start.contents is None:
        check_attention(experiment.config)
    if start.contents is None and experiment.config.init is not None:
        initialize(experiment)
    if start.contents is not None and start.checkpoint is not None and not start.done:
        check_resumed(experiment, start.checkpoint, start.contents)


def fit(experiment: TrainingExperiment, start: Start) -> Path:
    """Trains, and returns the run folder."""
    data = experiment.data  # mistakes in it before a folder is made
    announce(str(experiment.config.data["name"]), data.train, data.validation)
    experiment.module.data = data.train.source.plain()
    trainer = build_trainer(experiment, build_callbacks(experiment), start.folder)
    checkpoint = None if start.checkpoint is None else str(start.checkpoint)
    try:
        trainer.fit(experiment.module, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stopped
        raise
    finally:
        trainer.fit_loop.teardown()  # Lightning leaves workers alive where a validation fails
    folder = run_folder(trainer)
    if trainer.is_global_zero:
        print(_summary(trainer, folder, experiment.config.points > 0))
    return folder


def choose_precision(resolved: Resolved) -> Resolved:
    """The configuration with bfloat16 in place of `auto` where the hardware multiplies it, else float32."""
    t = resolved.config.trainer
    if t.precision == "auto":
        device = torch.device("cpu") if t.accelerator == "cpu" else find_device("auto")
        unit = bf16_units(device)
        t.precision = "bf16-mixed" if unit else "32-true"
        print(f"precision: {t.precision} ({device.type} has {unit or 'no units for bfloat16'})")
    return resolved


def _plan_variants(experiment: TrainingExperiment) -> dict[str, TrainingExperiment]:
    """Label -> the trainings that a figure compares besides the run itself."""
    resolved, planned = experiment.resolved, {}
    for label, overrides in resolved.figure.variants.items() if resolved.figure.name else ():
        if overrides:
            plain = {**resolved.plain(), "exp": label.replace(" ", "_")}
            variant = config.change(plain, f"variants.{label}", [*overrides, "logger=off"])
            planned[label] = TrainingExperiment(variant, parts=experiment.parts)
            _prepare(planned[label], Start())
    return planned


def _draw(experiment: TrainingExperiment, variants: dict[str, TrainingExperiment], folder: Path) -> None:
    """Trains the variants and draws the figure of all of them."""
    figure, trained = experiment.resolved.figure, []
    for label in figure.variants or [Path(experiment.config.exp).stem]:
        one, place = variants.get(label, experiment), folder
        if label in variants:
            print(f"\n{label}:")
            one.config.out = str(folder / "variants")
            place = fit(one, Start())
        model = one.module.average.model.cpu()
        losses = read_losses(place / LOG)
        trained.append(Trained(label, model, one.generator(), str(experiment.config.data["set"]), losses))
    FIGURES[str(figure.name)].draw(trained, experiment.split[0][:]).savefig(folder / "figure.png", dpi=150)
    draw_report(folder)  # which now has a figure
    print(f"\nFigure: {folder / 'figure.png'}")


def _summary(trainer: L.Trainer, folder: Path, points: bool) -> str:
    lines = [f"\nTrained {trainer.global_step} steps. Everything is in {folder}"]
    if "val/loss" in trainer.callback_metrics:
        lines.append(f"  validation loss {trainer.callback_metrics['val/loss']:.4f}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, PeriodicEvaluation):
            lines += [f"  {name:28} {value:z.4f}" for name, value in callback.named.items()]
    pictures = sorted((folder / "samples").glob("step_*.png"))
    lines += [f"  pictures: {pictures[-1]}"] if pictures else []
    lines += [f"  report: {folder / PAGE}"] if (folder / PAGE).is_file() else []
    checkpoint = folder / "checkpoints" / "last.ckpt"
    evaluation = "python -m score_lightning.eval ckpt" if config.INSTALLED else "make eval CKPT"
    lines += [] if points else [f"Next: {evaluation}={checkpoint}"]
    lines.append(f"{'Next' if points else '  or'}: python -m score_lightning.sample ckpt={checkpoint} n=64 out=samples")
    return "\n".join(lines)
