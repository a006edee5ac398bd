"""The training step: forward and backward pass, gradient clipping, optimizer and EMA update.

Each project uses its own loss, clipping and EMA, with Adam, on images in memory. Ours starts from uint8 images, which
it flips and scales; the others get scaled images. The network of diffusers is the same, operation by operation. The
process keeps freed memory, as all commands of this project do on glibc, which benefits the others, too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from score_lightning.bench import ours, peers
from score_lightning.bench.settings import OURS, Settings, Size, Step, sizes
from score_lightning.bench.tables import Bound, Row, Table, timed
from score_lightning.bench.timing import Timing, alternate
from score_lightning.runtime.processes import bf16_units

PRECISIONS = {"32-true": "float32", "bf16-mixed": "bf16"}
Timings = dict[tuple[str, str], Timing]
"""By (precision, name)."""


def run(settings: Settings) -> list[Table]:
    """A table for each network and precision, and one of the share of the updates."""
    tables, shares = [], []
    for size in sizes(settings):
        candidates = _build(size, settings.device)
        functions: dict[str, Callable[[], None]] = {" ".join(key): step for key, step in candidates.steps.items()}
        durations = alternate(functions, settings.repeats(7 if size.exp == "ddpm_cifar" else 15), settings.warmup(2))
        timings = {key: durations[" ".join(key)] for key in candidates.steps}
        tables += [_table(size, precision, timings, candidates, settings) for precision in PRECISIONS]
        shares.append(_share(size, candidates.steps["32-true", OURS], settings))
    return [*tables, Table("Share of clipping, optimizer and average in our step, float32", "%", shares)]


@dataclass(frozen=True)
class Candidates:
    """The steps to compare.

    Args:
        steps: by (precision, name).
        notes: by name.
        same: names of those with the same network as ours, ours among them.
    """

    steps: dict[tuple[str, str], Step]
    notes: dict[str, str]
    same: set[str]


def _build(size: Size, device: str) -> Candidates:
    module = ours.build_module(size, device)
    others = list(peers.available(size, device))
    parameters = sum(p.numel() for p in module.model.parameters())
    notes = {OURS: f"{parameters / 1e6:.2f} M parameters", **{peer.name: peer.note for peer in others}}
    steps = {}
    for precision in PRECISIONS:
        steps[precision, OURS] = ours.build_step(size, precision, device)
        for peer in others:
            steps[precision, peer.name] = peers.build_step(peer, size, precision, device)
    return Candidates(steps, notes, {OURS, *(peer.name for peer in others if peer.same)})


def _table(size: Size, precision: str, timings: Timings, candidates: Candidates, settings: Settings) -> Table:
    rows = [
        timed(
            name,
            timings[precision, name],
            peer=name != OURS,
            same=name in candidates.same,
            note=f"{note}, {size.batch / timings[precision, name].median:.3g} images/s",
            bounds=_bounds(size, precision, timings, candidates.same, settings) if name == OURS else (),
        )
        for name, note in candidates.notes.items()
    ]
    return Table(f"Training step, {size.title}, batch {size.batch}, {PRECISIONS[precision]}", "ms", rows)


def _bounds(size: Size, precision: str, timings: Timings, same: set[str], settings: Settings) -> tuple[Bound, ...]:
    """Limits of our step's ratio to the fastest peer with the same network."""
    bf16 = precision == "bf16-mixed"
    if bf16 and not bf16_units(torch.device(settings.device)):
        return ()
    if size.exp == "ddpm_digits":
        limits = {precision: 0.8}
    else:
        limits = {"32-true": 0.6, precision: 0.75} if bf16 else {precision: 0.85}
    bounds = []
    for other, limit in limits.items():
        medians = [t.median for (p, name), t in timings.items() if p == other and name in same - {OURS}]
        if medians:
            ratio = timings[precision, OURS].median / min(medians)
            bounds.append(Bound(f"ratio to {PRECISIONS[other]}", ratio, limit))
    return tuple(bounds)


def _share(size: Size, step: Step, settings: Settings) -> Row:
    """100 update / (compute + update)."""
    halves = {"compute": step.compute, "update": step.update}
    timings = alternate(halves, settings.repeats(7), 1)
    pairs = zip(timings["compute"].seconds, timings["update"].seconds, strict=True)
    shares = Timing(tuple(100 * update / (compute + update) for compute, update in pairs))
    return timed(size.title, shares, 1, bounds=(Bound("share", shares.median, 6),))
