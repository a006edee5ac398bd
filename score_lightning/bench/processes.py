"""Training with several processes of one thread each, and the same batch size per process.

DDP over gloo, started by Lightning as in `train`.
"""

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

from score_lightning.bench.fresh import ask
from score_lightning.bench.settings import Settings, Size, sizes
from score_lightning.bench.tables import Bound, LeftOut, Row, Table, rate
from score_lightning.bench.timing import Timing, alternate
from score_lightning.bench.trainer import configure, fit
from score_lightning.cli import split_arguments
from score_lightning.runtime.startup import keep_memory

BATCH = 16  # of each process


def run(settings: Settings) -> list[Table]:
    """A table of images per second with 1, 2 and 4 processes, as far as there are cores for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [count for count in (1, 2, 4) if count <= cores]
    if len(counts) < 2:
        raise LeftOut("it needs at least two cores")
    timings = alternate({str(n): partial(_ask, n, settings) for n in counts}, settings.repeats(3), 0)
    batch = 2 if settings.quick else BATCH
    one = batch / timings["1"].median
    rows = [_row(count, timings[str(count)], batch, one) for count in counts]
    left_out = [str(count) for count in (1, 2, 4) if count not in counts]
    note = f"Left out: {', '.join(left_out)} processes, on {cores} cores." if left_out else ""
    return [Table(f"DDP, {sizes(settings)[0].title}, batch {batch} a process", "images/s", rows, more=True, note=note)]


def _row(processes: int, timing: Timing, batch: int, one: float) -> Row:
    """Images per second; `one` is that of a single process."""
    ratio = processes * batch / timing.median / one
    return rate(
        f"{processes} processes" if processes > 1 else "1 process",
        timing,
        processes * batch,
        note=f"{ratio:.2f} times one process",
        bounds=(Bound("times one", ratio, 1.85, least=True),) if processes == 2 else (),
    )


def _ask(processes: int, settings: Settings) -> float:
    arguments = [f"processes={processes}", f"quick={str(settings.quick).lower()}"]
    return float(ask("processes", arguments, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}))


def measure(processes: int, quick: bool) -> float:
    """Seconds per step, from the third on: in the second, DDP arranges its messages once."""
    first = sizes(Settings(quick=quick))[0]
    size = Size(first.title, first.exp, first.overrides, processes * (2 if quick else BATCH))
    overrides = [f"trainer.devices={processes}", "trainer.accelerator=cpu"]
    overrides += ["trainer.strategy=ddp"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as out:
        return fit(configure(size, 3 if quick else 8, Path(out), *overrides), size.images(4 * size.batch), warmup=2)


if __name__ == "__main__":
    keep_memory()  # as train does
    options, _ = split_arguments(sys.argv[1:], {"processes": int, "quick": bool})
    seconds = measure(options["processes"], options["quick"])
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(json.dumps(seconds))
