"""A Weights & Biases logger that survives: no connection, a broken one, a run that was killed and goes on."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

STEP = "trainer/global_step"
NEXT = {"offline": "the run is logged offline; `wandb sync` sends it later", "disabled": "nothing is logged there"}
"""What is tried where a run cannot begin, and how it is told."""
FLUSH = 2.0
"""Seconds after which what was logged is in the offline record."""
UPLOAD = 120.0
"""Seconds that a run waits at its end for what is still to be sent; `wandb sync` sends it later."""


class ResilientWandbLogger(WandbLogger):
    """One run at W&B for one training, however often that is killed and goes on.

    Where the server cannot be reached or refuses the key the run is logged offline. Where logging fails later it ends
    with a message, and the training goes on. What W&B has of a step is not logged again, and what it lost is
    (`restore`). Losses by noise level are also a chart, evaluations a table.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        import wandb

        settings = wandb.Settings(x_transaction_log_flush_interval=FLUSH)
        if "finish_timeout" in wandb.Settings.model_fields:  # not in older versions
            settings.finish_timeout = UPLOAD
        super().__init__(*args, settings=settings, **options)
        self._kept: set[tuple[int, str]] = set()
        self._line = 0
        self._evaluations: list[dict[str, Any]] = []
        self._broken = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run."""
        import wandb

        if self._experiment is None:
            for otherwise, what in NEXT.items():
                try:
                    super().experiment  # noqa: B018 - it is begun
                    break
                except Exception as error:  # wandb raises almost anything here
                    if self._wandb_init.get("mode") == otherwise:
                        continue
                    print(f"Weights & Biases is not reached ({str(error).splitlines()[0]}): {what}")
                    self._wandb_init["mode"] = otherwise
                    wandb.teardown()  # or the run counts as begun
            with suppress(Exception):  # without it, something is there twice
                self._look_back(super().experiment)
        return self._experiment

    def _look_back(self, run: Any) -> None:
        """Learns what W&B has of this run from before."""
        import wandb

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
        metrics = {key: value for key, value in metrics.items() if key != "epoch"}  # there is one here
        evaluation = {key.removeprefix("eval/"): value for key, value in metrics.items() if key.startswith("eval/")}
        if evaluation:
            self._evaluations.append({"step": at, **evaluation})
        if all((at, key) in self._kept for key in metrics):
            return
        self._patiently(lambda: self._log({**metrics, **self._drawn(metrics)}, at))

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        run = self.experiment
        if run.offline:  # a run that goes on offline cannot ask where it was
            run.log({**values, STEP: step}, step=self._line, commit=True)
            self._line += 1
        else:
            run.log({**values, STEP: step})

    def _drawn(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """A chart of the losses by noise level and a table of the evaluations, where the metrics have some."""
        import wandb

        drawn: dict[str, Any] = {}
        levels = [
            [float(key.split("/")[1]), float(value)] for key, value in metrics.items() if key.startswith("val_level/")
        ]
        if levels:
            table = wandb.Table(data=sorted(levels), columns=["time", "loss"])
            drawn["val/by_level"] = wandb.plot.line(table, "time", "loss", title="validation loss by time")
        if any(key.startswith("eval/") for key in metrics):
            columns: list[Any] = list(dict.fromkeys(key for row in self._evaluations for key in row))
            rows = [[row.get(key) for key in columns] for row in self._evaluations]
            drawn["eval/table"] = wandb.Table(data=rows, columns=columns)
        return drawn

    @rank_zero_only
    def log_image(self, *args: Any, **options: Any) -> None:
        """Logs pictures."""
        self._patiently(lambda: super(ResilientWandbLogger, self).log_image(*args, **options))

    def restore(self, rows: Sequence[Mapping[str, Any]], pictures: Sequence[tuple[str, int, Path]]) -> None:
        """Logs what was lost of rows of metrics and (key, step, file) of pictures from before a run went on."""
        for row in rows:
            self.log_metrics({key: value for key, value in row.items() if key != "step"}, row["step"])
        for key, step, path in pictures:
            self.log_image(key, [str(path)], step=step, caption=[f"step {step}"])

    def do(self, what: Callable[[Any], None]) -> None:
        """Does something with the run, if there still is one."""
        self._patiently(lambda: what(self.experiment))

    def _patiently(self, log: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            log()
        except Exception as error:  # wandb raises almost anything here
            self._broken = True
            reason = str(error).splitlines()[0]
            print(f"Weights & Biases failed ({reason}): nothing more is logged there; the run goes on")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the run at W&B, too: the next training of this process is another one."""
        if self._experiment is not None:
            self.do(lambda run: run.finish(exit_code=int(status != "success")))
            self._experiment = None


def read_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, as protocol buffers; one whose writer was killed ends with its last whole one.

    The file is a header of 7 bytes, then blocks of 32 KiB of parts of records, each with a checksum, its length and its
    kind: a whole record (1), or its first (2), a middle (3) or its last (4) part.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        if kind == 0 or place + 7 + length > len(data):
            return
        parts = (parts if kind in (3, 4) else b"") + data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record


def read_line(record: Any) -> dict[str, str]:
    """What a record logs: key -> JSON; nothing if it is of another kind."""
    return {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
