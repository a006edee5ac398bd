"""A Weights & Biases logger that survives: no connection, a broken one, a run that is killed and resumed."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning_utilities.core.imports import lazy_import

from score_lightning.runtime.files import write_text
from score_lightning.tracking.offline import read_line, read_records

wandb: Any = lazy_import("wandb")  # 1.2 s, for which runs without it do not wait

STEP = "trainer/global_step"
IDENTITY = "wandb_id.txt"
"""The file of a run folder that holds the run's id at Weights & Biases."""
FALLBACKS = {
    "offline": "the run is logged offline; `wandb sync` sends it later",
    "disabled": "nothing is logged there",
}
"""Modes to try where a run cannot start, and the message to the user."""
FLUSH = 2.0
"""Seconds after which what was logged is in the offline record."""
UPLOAD = 120.0
"""Seconds that a run waits at its end for uploads; `wandb sync` sends the rest later."""


class ResilientWandbLogger(WandbLogger):
    """One run at W&B for one training, however often that is killed and resumed.

    Where the server cannot be reached or refuses the key, the run is logged offline. Where logging fails later, it ends
    with a message and the training continues; where only a picture, chart or table fails, its numbers are logged and
    the first such failure is reported. W&B keeps files that wait for their upload in the run folder if the home folder
    cannot be written. What W&B has of a step is not logged again, and what it lost is
    (`restore`). Losses by noise level are also a chart, evaluations a table.

    Args:
        folder: of the run. The id at W&B is the one that it holds (see `keep_id`), else a new one.
        options: of Lightning's WandbLogger.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        wanted = {"x_transaction_log_flush_interval": FLUSH, "finish_timeout": UPLOAD}
        known = wandb.Settings.model_fields  # not all in older versions, which write to the record at once
        settings = wandb.Settings(**{key: value for key, value in wanted.items() if key in known})
        self._id_file, self._staging = folder / IDENTITY, folder / "wandb"
        identity = self._id_file.read_text(encoding="utf-8").strip() if self._id_file.is_file() else uuid4().hex[:8]
        super().__init__(save_dir=folder, id=identity, settings=settings, **options)
        self._kept: set[tuple[int, str]] = set()
        self._line = 0
        self._evaluations: list[dict[str, Any]] = []
        self._broken = self._incomplete = False

    def keep_id(self) -> None:
        """Writes the id into the run folder, so that the run is the same one when it is resumed."""
        write_text(self._id_file, f"{self.version}\n")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run."""
        if self._experiment is None:
            _stage_in(self._staging)
            for mode, consequence in FALLBACKS.items():
                try:
                    super().experiment  # noqa: B018 - this starts it
                    break
                except Exception as error:  # wandb raises almost anything here
                    if self._wandb_init.get("mode") == mode:
                        continue
                    print(f"Weights & Biases is not reached ({str(error).splitlines()[0]}): {consequence}")
                    self._wandb_init["mode"] = mode
                    wandb.teardown()  # or the run counts as started
            with suppress(Exception):  # without it, some of it is logged twice
                self._look_back(super().experiment)
        return self._experiment

    def _look_back(self, run: Any) -> None:
        """Learns what W&B already has of this run."""
        lines: Iterable[Mapping[str, Any]] = []
        if run.offline:
            paths = sorted(Path(str(self._save_dir)).glob(f"wandb/*run-*/run-{run.id}.wandb"))
            lines = (line for path in paths for line in map(read_line, read_records(path)) if line)
        elif run.resumed:
            lines = wandb.Api().run(run.path).scan_history()
        for line in lines:
            self._line = max(self._line, int(float(line.get("_step", -1))) + 1)
            step = -1 if line.get(STEP) is None else int(float(line[STEP]))
            self._kept |= {(step, key) for key, value in line.items() if value is not None}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs what W&B does not have yet of a step."""
        at = -1 if step is None else step
        metrics = {key: value for key, value in metrics.items() if key != "epoch"}  # there is one only
        evaluation = {key.removeprefix("eval/"): value for key, value in metrics.items() if key.startswith("eval/")}
        if evaluation:
            self._evaluations.append({"step": at, **evaluation})
        if all((at, key) in self._kept for key in metrics):
            return
        self._attempt(lambda: self._log_what_works({**metrics, **self._media(metrics)}, at))

    def _log_what_works(self, values: Mapping[str, Any], step: int) -> None:
        """Logs all values of a step, or the numbers among them where the others cannot be written."""
        numbers = {key: value for key, value in values.items() if isinstance(value, Real)}
        try:
            self._log(values, step)
        except Exception as error:  # wandb raises almost anything here
            if len(numbers) == len(values) or isinstance(error, ConnectionError):
                raise
            if numbers:
                self._log(numbers, step)
            self._report(error)

    def _report(self, error: Exception) -> None:
        """Says once that pictures, charts or tables are missing."""
        if not self._incomplete:
            reason = str(error).splitlines()[0]
            print(f"Weights & Biases: a picture, chart or table cannot be written ({reason}); numbers are logged")
        self._incomplete = True

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        run = self.experiment
        if run.offline:  # a resumed offline run cannot ask where it was
            run.log({**values, STEP: step}, step=self._line, commit=True)
            self._line += 1
        else:
            run.log({**values, STEP: step})

    def _media(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """A chart of the losses by noise level and a table of the evaluations, where the metrics have some."""
        media: dict[str, Any] = {}
        levels = [
            [float(key.split("/")[1]), float(value)] for key, value in metrics.items() if key.startswith("val_level/")
        ]
        if levels:
            table = wandb.Table(data=sorted(levels), columns=["time", "loss"])
            media["val/by_level"] = wandb.plot.line(table, "time", "loss", title="validation loss by time")
        if any(key.startswith("eval/") for key in metrics):
            columns: list[Any] = list(dict.fromkeys(key for row in self._evaluations for key in row))
            rows = [[row.get(key) for key in columns] for row in self._evaluations]
            media["eval/table"] = wandb.Table(data=rows, columns=columns)
        return media

    @rank_zero_only
    def log_image(self, *args: Any, **options: Any) -> None:
        """Logs pictures."""
        try:
            super().log_image(*args, **options)
        except Exception as error:  # wandb raises almost anything here
            self._report(error)

    def restore(self, rows: Sequence[Mapping[str, Any]], pictures: Sequence[tuple[str, int, Path]]) -> None:
        """Logs what was lost of rows of metrics and (key, step, file) of pictures from before a run was resumed."""
        for row in rows:
            self.log_metrics({key: value for key, value in row.items() if key != "step"}, row["step"])
        for key, step, path in pictures:
            self.log_image(key, [str(path)], step=step, caption=[f"step {step}"])

    def do(self, action: Callable[[Any], None]) -> None:
        """Calls a function with the run, unless logging has failed."""
        self._attempt(lambda: action(self.experiment))

    def _attempt(self, log: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            log()
        except Exception as error:  # wandb raises almost anything here
            self._broken = True
            reason = str(error).splitlines()[0]
            print(f"Weights & Biases failed ({reason}): nothing more is logged there; the run continues")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the run at W&B, too: the next training of this process is another one."""
        if self._experiment is not None:
            self.do(lambda run: run.finish(exit_code=int(status != "success")))
            self._experiment = None


def _stage_in(folder: Path) -> None:
    """Lets W&B keep files that wait for their upload in a folder, where its own in the home folder cannot be written.

    Settings in the environment take precedence.
    """
    places = {"WANDB_DATA_DIR": wandb.env.get_data_dir(), "WANDB_CACHE_DIR": wandb.env.get_cache_dir()}
    for name, default in places.items():
        if name not in os.environ and not _writable(Path(default)):
            os.environ[name] = str(folder)


def _writable(folder: Path) -> bool:
    """Whether files can be written into a folder, which is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
