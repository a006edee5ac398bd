"""run.json: what was trained, on which machine, for how long."""

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch

from score_lightning.evaluation.provenance import commit, versions
from score_lightning.runtime.files import write_text
from score_lightning.runtime.processes import device_name, processor_name, rank_of
from score_lightning.tracking.dashboard import Stopwatch
from score_lightning.training.module import ScoreModule

RECORD = "run.json"
TIMES = ("wall_seconds", "training_seconds", "processor_seconds")


class RunRecord(Stopwatch):
    """Writes run.json with every checkpoint, which holds the record, too: times add up when a run is resumed.

    A session is what one start of the command has trained. Its `wall_seconds` pass from its first step on,
    `training_seconds` are those without validation, sample grids and evaluation, and `processor_seconds` are of the
    cores of all processes. Work that was lost in a kill, after the last checkpoint, is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before: list[dict[str, Any]] = []
        self._run: dict[str, Any] = {}
        self._session: dict[str, Any] = {}
        self._folder = Path()
        self._start = 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: ScoreModule) -> None:  # type: ignore[override]
        """Starts a session."""
        self._folder = Path(str(trainer.log_dir))  # rank 0 broadcasts it: every rank must ask
        if trainer.is_global_zero:
            self._run, self._session = _describe_run(trainer, pl_module), _describe_session(trainer)
        self._start, self._excluded = (time.monotonic(), time.process_time()), 0.0

    def record(self, trainer: L.Trainer) -> dict[str, Any]:
        """The contents of run.json until now, at rank 0; every rank must call."""
        wall = time.monotonic() - self._start[0]
        used = sum(rank_of(trainer).gather(time.process_time() - self._start[1]))
        times = {name: round(t, 3) for name, t in zip(TIMES, (wall, wall - self._excluded, used), strict=True)}
        date = datetime.now(UTC).isoformat(timespec="seconds")
        session = {**self._session, "last_step": trainer.global_step, **times, "date": date}
        sessions = [*self._before, session]
        totals = {name: round(sum(one[name] for one in sessions), 3) for name in TIMES}
        last = {name: value for name, value in session.items() if name not in ("first_step", "last_step", "started")}
        return {**self._run, "steps": trainer.global_step, **last, **totals, "sessions": sessions}

    def write(self, trainer: L.Trainer) -> dict[str, Any]:
        """Writes run.json if that is possible, and returns its contents; every rank must call."""
        record = self.record(trainer)
        if trainer.is_global_zero:
            with suppress(OSError):  # a full disk is reported when a checkpoint is due
                write_text(self._folder / RECORD, json.dumps(record, indent=2) + "\n")
        return record

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Adds the record to the checkpoint, and writes it."""
        checkpoint["run"] = self.write(trainer)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Restores the sessions before this one; older checkpoints have none."""
        self._before = list(checkpoint.get("run", {}).get("sessions", []))


def _describe_run(trainer: L.Trainer, module: ScoreModule) -> dict[str, Any]:
    """What all sessions of a run have in common, unless it is resumed with other settings."""
    config, data = module.config, trainer.datamodule  # type: ignore[attr-defined]
    held_out = 0 if data.validation is data.train else len(data.validation)
    return {
        "experiment": Path(config["exp"]).stem,
        "parameters": sum(p.numel() for p in module.model.parameters()),
        "data": config["data"]["name"],
        "training_images": len(data.train),
        "validation_images": held_out,
        "shape": list(data.train.shape),
        "batch_size": config["trainer"]["batch_size"] * trainer.accumulate_grad_batches,
        "max_steps": trainer.max_steps,
    }


def _describe_session(trainer: L.Trainer) -> dict[str, Any]:
    """The machine and the software of one session."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "first_step": trainer.global_step,
        "device": device_name(trainer.strategy.root_device),
        "processor": processor_name(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "processes": trainer.world_size,
        "nodes": trainer.num_nodes,
        "threads_per_process": torch.get_num_threads(),
        "precision": str(trainer.precision),
        "versions": versions(),
        "commit": commit(),
    }


def duration(seconds: float) -> str:
    """Seconds as people say them: 45.3 s, 12 min 5 s, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
