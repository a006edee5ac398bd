"""The training's part of report.html: what W&B shows of a run, drawn of the files in its folder."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from PIL import Image

from score_lightning.evaluation.page import figure, folded, section, table, write_part
from score_lightning.evaluation.report import METRICS, metrics_section, setting_rows
from score_lightning.tracking.csv import LOG, MetricsLogger, read_log
from score_lightning.tracking.dashboard import PICTURES, untimed
from score_lightning.training import curves
from score_lightning.training.curves import Curve
from score_lightning.training.record import RECORD, RunRecord, duration
from score_lightning.training.step_callbacks import RATES

EARLIER = 5  # grids before the last one, which are shown small
THUMBNAIL = 288  # pixels


class TrainingReport(L.Callback):
    """Writes the report every few steps, when all of the step is done, and after the last one, on the first rank.

    Args:
        every: steps between reports; only after the last one when None.
        record: of the run, which is written with it.
    """

    def __init__(self, every: int | None, record: RunRecord) -> None:
        self._every, self._record, self._last, self._failed = every, record, 0, False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Notes the step that a run is resumed from."""
        self._folder, self._last = Path(str(trainer.log_dir)), trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Draws the report of the previous step, if it is time."""
        step = trainer.global_step
        if self._every is not None and step > self._last and step % self._every == 0:
            self._draw(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Draws the last report."""
        self._draw(trainer)

    def _draw(self, trainer: L.Trainer) -> None:
        self._last = trainer.global_step
        with untimed(trainer):
            self._record.write(trainer)
            if trainer.is_global_zero:
                for logger in trainer.loggers:
                    if isinstance(logger, MetricsLogger):
                        logger.save()
                self._failed = not draw_report(self._folder, quiet=self._failed)


def draw_report(folder: Path, quiet: bool = False) -> bool:
    """Writes a run folder's report; a failure is reported once, and ends nothing."""
    try:
        write_training(folder)
    except Exception as error:  # a page is not worth a training
        if not quiet:
            print(f"No report of the training: {type(error).__name__}: {error}")
        return False
    return True


def write_training(folder: Path) -> Path:
    """Writes the training's part of report.html from run.json, metrics.csv, metrics.json, config.yaml and samples/."""
    run = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    log = read_log(folder / LOG)
    parts = [
        section("Run", table(_run_rows(run))),
        *_curves(log),
        *_grids(folder, run["steps"], len(run["shape"]) == 3),
        *_evaluation(folder, log),
        section("Configuration", folded("config.yaml", (folder / "config.yaml").read_text(encoding="utf-8"))),
    ]
    title = f"{run['experiment']}: training, {run['steps']:,} of {run['max_steps']:,} steps"
    return write_part(folder, "training", title, "\n".join(parts))


def _run_rows(run: Mapping[str, Any]) -> list[list[str]]:
    """What was trained, on what, for how long."""
    sessions, shape = run["sessions"], " x ".join(map(str, run["shape"]))
    devices = f"{run['processes']} x {run['device']}" if run["processes"] > 1 else run["device"]
    seen = run["steps"] * run["batch_size"]
    return [
        ["experiment", run["experiment"]],
        ["parameters", f"{run['parameters']:,}"],
        [
            "data",
            f"{run['data']}: {run['training_images']:,} to train on, {run['validation_images']:,} held out, {shape}",
        ],
        ["steps", f"{run['steps']:,} of {run['max_steps']:,}, batches of {run['batch_size']:,}"],
        ["epochs", f"{seen / run['training_images']:,.1f}"],
        ["wall time", duration(run["wall_seconds"])],
        ["training alone", duration(run["training_seconds"])],
        ["processor time", duration(run["processor_seconds"])],
        ["sessions", f"{len(sessions)}, the first from {sessions[0]['started']}, the last until {run['date']}"],
        ["device", devices],
        ["processor", f"{run['processor']}, {run['cores']} cores, threads per process: {run['threads_per_process']}"],
        ["precision", run["precision"]],
        ["commit", run["commit"] or "–"],
        ["versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())],
    ]


def _curves(log: Mapping[str, Curve]) -> list[str]:
    """Losses, losses by level and learning rates, of those that were logged."""
    train, validation = log.get("train/loss", []), log.get("val/loss", [])
    times = {float(name.removeprefix("val_level/")): name for name in log if name.startswith("val_level/")}
    levels = {f"{t:g}": log[times[t]] for t in sorted(times)}
    rates = {name: log[name] for name in RATES if name in log}
    last = f", in the end {validation[-1][1]:.4g}" if validation else ""
    texts = {
        "Loss": f"Of the training batches, with its running mean, and of the averaged weights in validation{last}.",
        "Loss by noise level": "In validation, at times t, which grow with the noise.",
        "Learning rate": "Of each step that was logged.",
    }
    drawn = {
        "Loss": curves.plot_loss(train, validation) if train or validation else None,
        "Loss by noise level": curves.plot_levels(levels) if len(levels) > 1 else None,
        "Learning rate": curves.plot_rates(rates) if rates else None,
    }
    return [section(name, figure(png, name, texts[name])) for name, png in drawn.items() if png is not None]


def _grids(folder: Path, step: int, pixels: bool) -> list[str]:
    """The last grid, some of those before it, the last trajectories, and a toy experiment's figure."""
    kind, parts = "pixels" if pixels else "plot", []
    grid, trajectory = (_numbered(folder / "samples", prefix, step) for prefix in PICTURES.values())
    if grid:
        earlier = [grid[i * (len(grid) - 1) // EARLIER] for i in range(EARLIER)] if len(grid) > EARLIER else grid[:-1]
        shown = [figure(_thumbnail(path), f"step {s:,}", f"step {s:,}", "small") for s, path in earlier]
        last, path = grid[-1]
        shown.append(figure(path.read_bytes(), f"step {last:,}", f"Step {last:,}; always from the same noise.", kind))
        parts.append(section("Samples", "\n".join(shown)))
    for last, path in trajectory[-1:]:
        parts.append(section("Trajectory", figure(path.read_bytes(), "trajectory", f"Step {last:,}.", kind)))
    if (folder / "figure.png").is_file():
        parts.append(section("Figure", figure((folder / "figure.png").read_bytes(), "figure")))
    return parts


def _numbered(folder: Path, prefix: str, last: int) -> list[tuple[int, Path]]:
    """(step, path) of a run's pictures until a step, in their order."""
    numbered = [(int(path.stem.rpartition("_")[2]), path) for path in sorted(folder.glob(f"{prefix}_*.png"))]
    return [(step, path) for step, path in numbered if step <= last]


def _thumbnail(path: Path) -> bytes:
    file = io.BytesIO()
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    small.save(file, format="PNG")
    return file.getvalue()


def _evaluation(folder: Path, log: Mapping[str, Curve]) -> list[str]:
    """The metrics of the evaluations during training: the last ones, with their settings, and all over the steps."""
    metrics = {name.removeprefix("eval/"): curve for name, curve in log.items() if name.startswith("eval/")}
    if not metrics:
        return ["<p>No evaluation during training: a checkpoint is evaluated by the command eval.</p>"]
    step = max(curve[-1][0] for curve in metrics.values())
    parts, settings = _last_metrics(folder, step)
    if not parts:
        last = {name: curve[-1][1] for name, curve in metrics.items() if curve[-1][0] == step}
        parts = [metrics_section(last)]
    over = {name: curve for name, curve in metrics.items() if len(curve) > 1 and "_std_" not in name}
    if over:
        text = "Of every evaluation; names end with the number of images."
        parts.append(section("Metrics over the training", figure(curves.plot_metrics(over), "metrics", text)))
    if settings:
        parts.append(section("Settings of the evaluation", table([["setting", "value"], *setting_rows(settings)])))
    return parts


def _last_metrics(folder: Path, step: int) -> tuple[list[str], Mapping[str, Any]]:
    """The table and the settings of metrics.json, nothing if it is not of this step of the training."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        settings = metrics.pop("settings")
    except (OSError, ValueError, KeyError):
        return [], {}
    if settings.get("step") != step or "checkpoint" in settings:  # of the command eval
        return [], {}
    return [metrics_section(metrics), f"<p>Of step {step:,}, {settings['n']:,} images.</p>"], settings
