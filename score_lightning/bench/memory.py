"""Peak memory of training, with a separate process for each batch size.

On a CPU, the peak memory of the process minus its memory after all imports; on a GPU, the peak allocated by torch.
"""

import json
import sys
from contextlib import suppress
from pathlib import Path

import torch

from score_lightning.bench import ours, peers
from score_lightning.bench.fresh import ask
from score_lightning.bench.machine import total_memory
from score_lightning.bench.settings import OURS, UNET, Settings, Size, sizes
from score_lightning.bench.tables import Curves, LeftOut, Row, Table
from score_lightning.cli import split_arguments
from score_lightning.runtime.startup import keep_memory

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

BATCHES = (1, 4, 16, 64, 128)


def run(settings: Settings) -> list[Table]:
    """One table, with its curve.

    Raises:
        LeftOut: on Windows.
    """
    if resource is None:
        raise LeftOut("Windows does not say how much memory a process has taken")
    size = sizes(settings)[0]
    names = [OURS, *(peer.name for peer in peers.available(size, "cpu") if peer.same)]
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    limit = 0.8 * total_memory(settings.device) / 2**30
    rows, notes = [], []
    for batch in (1, 2) if settings.quick else BATCHES:
        for name, points in lines.items():
            expected = points[-1][1] * batch / points[-1][0] if points else 0.0
            if expected > limit:
                notes.append(f"{name} at {batch} images would need up to {expected:.0f} GiB, more than there is.")
                continue
            peak = _ask(name, batch, settings)
            points.append((batch, peak))
            rows.append(Row(f"{name}, batch {batch}", peak, note=f"{1024 * peak / batch:.0f} MiB an image"))
    curves = Curves("batch size", "GiB", lines, log_y=True)
    title = f"Peak memory of training, {size.title}, float32"
    return [Table(title, "GiB", rows, note=" ".join(notes), curves=[curves])]


def _ask(name: str, batch: int, settings: Settings) -> float:
    quick = str(settings.quick).lower()
    arguments = [f"project={name}", f"batch={batch}", f"device={settings.device}", f"quick={quick}"]
    return float(ask("memory", arguments))


def measure(name: str, size: Size, device: str) -> float:
    """Peak memory of three steps in GiB; Adam's state exists from the second on."""
    _train(name, Size("digits", "ddpm_digits", UNET, 2), "cpu")  # so that lazily loaded libraries do not count
    before = _resident("VmRSS")
    _train(name, size, device)
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return (_resident("VmHWM") - before) / 2**30


def _train(name: str, size: Size, device: str) -> None:
    if name == OURS:
        step = ours.build_step(size, "32-true", device)
    else:
        peer = next(peer for peer in peers.available(size, device) if peer.name == name)
        step = peers.build_step(peer, size, "32-true", device)
    for _ in range(3):
        step()


def _resident(field: str) -> int:
    """Bytes in memory: current (VmRSS) or peak (VmHWM); without /proc always the peak.

    getrusage's peak includes that of the process that started this one.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    options, _ = split_arguments(sys.argv[1:], {"project": str, "batch": int, "device": str, "quick": bool})
    if options["project"] == OURS:
        keep_memory()  # as train does
    first = sizes(Settings(options["device"], options["quick"]))[0]
    measured = Size(first.title, first.exp, first.overrides, options["batch"])
    print(json.dumps(measure(options["project"], measured, options["device"])))
