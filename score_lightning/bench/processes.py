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
from score_lightning.bench.tables import Bound, LeftOut, Row, Table
from score_lightning.bench.timing import alternate
from score_lightning.bench.trainer import configure, fit
from score_lightning.cli import split_arguments
from score_lightning.runtime.startup import keep_memory

BATCH = 16  # of each process


def run(settings: Settings) -> list[Table]:
    """Images per second of 1, 2 and 4 processes, as far as there are cores for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [count for count in (1, 2, 4) if count <= cores]
    if len(counts) < 2:
        raise LeftOut("it needs at least two cores")
    found = alternate({str(n): partial(_ask, n, settings) for n in counts}, settings.repeats(3), 0)
    batch = 2 if settings.quick else BATCH
    one = batch / found["1"].median
    rows = []
    for count in counts:
        timing = found[str(count)]
        speed, (low, high) = count * batch / timing.median, timing.quartiles
        bounds = (Bound("times one", speed / one, 1.85, least=True),) if count == 2 else ()
        note = f"{speed / one:.2f} times one process"
        quartiles = (count * batch / high, count * batch / low)
        rows.append(
            Row(f"{count} processes" if count > 1 else "1 process", speed, *quartiles, note=note, bounds=bounds)
        )
    left = [str(count) for count in (1, 2, 4) if count not in counts]
    note = f"Left out: {', '.join(left)} processes, on {cores} cores." if left else ""
    return [Table(f"DDP, {sizes(settings)[0].title}, batch {batch} a process", "images/s", rows, more=True, note=note)]


def _ask(processes: int, settings: Settings) -> float:
    words = [f"processes={processes}", f"quick={str(settings.quick).lower()}"]
    return float(ask("processes", words, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}))


def measure(processes: int, quick: bool) -> float:
    """Seconds of a step, from the third on: in the second DDP arranges its messages, once."""
    first = sizes(Settings(quick=quick))[0]
    size = Size(first.title, first.exp, first.words, processes * (2 if quick else BATCH))
    words = [f"trainer.devices={processes}", "trainer.accelerator=cpu"]
    words += ["trainer.strategy=ddp"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as out:
        return fit(configure(size, 3 if quick else 8, Path(out), *words), size.images(4 * size.batch), warmup=2)


if __name__ == "__main__":
    keep_memory()  # as train does
    own, _ = split_arguments(sys.argv[1:], {"processes": int, "quick": bool})
    found = measure(own["processes"], own["quick"])
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(json.dumps(found))
