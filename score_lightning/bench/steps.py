"""The training step: forward and backward pass, gradient clipping, optimizer and EMA update.

Each project uses its own loss, clipping and EMA, with Adam, on images in memory. Ours starts from uint8 images, which
it flips and scales; the others get scaled images. The network of diffusers is the same, operation by operation. The
process keeps freed memory, as all commands of this project do on glibc, which benefits the others, too.
"""

from collections.abc import Callable

import torch

from score_lightning.bench import ours, peers
from score_lightning.bench.settings import Settings, Size, Step, sizes
from score_lightning.bench.tables import Bound, Row, Table, timed
from score_lightning.bench.timing import Timing, alternate
from score_lightning.runtime.processes import bf16_units

PRECISIONS = {"32-true": "float32", "bf16-mixed": "bf16"}
OURS = "score_lightning"


def run(settings: Settings) -> list[Table]:
    """A table for each network and precision, and one of the share of the updates."""
    tables, shares = [], []
    for size in sizes(settings):
        built, notes, same = _build(size, settings.device)
        steps = {(precision, name): step for precision in PRECISIONS for name, step in built[precision].items()}
        functions: dict[str, Callable[[], None]] = {" ".join(key): step for key, step in steps.items()}
        repeats = settings.repeats(7 if size.exp == "ddpm_cifar" else 15)
        found = alternate(functions, repeats, 0 if settings.quick else 2)
        timings = {key: found[" ".join(key)] for key in steps}
        for precision, title in PRECISIONS.items():
            rows = [
                timed(
                    name,
                    timings[precision, name],
                    peer=name != OURS,
                    same=name in same,
                    note=f"{notes[name]}, {size.batch / timings[precision, name].median:.3g} images/s",
                    bounds=_bounds(size, precision, timings, same, settings) if name == OURS else (),
                )
                for name in built[precision]
            ]
            tables.append(Table(f"Training step, {size.title}, batch {size.batch}, {title}", "ms", rows))
        shares.append(_share(size, built["32-true"][OURS], settings))
    return [*tables, Table("Share of clipping, optimizer and average in our step, float32", "%", shares)]


def _build(size: Size, device: str) -> tuple[dict[str, dict[str, Step]], dict[str, str], set[str]]:
    """(precision -> name -> step, name -> note, names of those with the same network)."""
    module = ours.build_module(size, device)
    found = list(peers.available(size, device))
    parameters = sum(p.numel() for p in module.model.parameters())
    notes = {OURS: f"{parameters / 1e6:.2f} M parameters", **{peer.name: peer.note for peer in found}}
    steps = {
        precision: {
            OURS: ours.build_step(size, precision, device),
            **{peer.name: peers.build_step(peer, size, precision, device) for peer in found},
        }
        for precision in PRECISIONS
    }
    return steps, notes, {OURS, *(peer.name for peer in found if peer.same)}


def _bounds(
    size: Size, precision: str, timings: dict[tuple[str, str], Timing], same: set[str], settings: Settings
) -> tuple[Bound, ...]:
    """What our step must be of that of the fastest peer with the same network."""
    own, bf16 = timings[precision, OURS].median, precision == "bf16-mixed"

    def of(other: str, limit: float) -> list[Bound]:
        found = [t.median for (p, name), t in timings.items() if p == other and name in same - {OURS}]
        return [Bound(f"ratio to {PRECISIONS[other]}", own / min(found), limit)] if found else []

    if bf16 and not bf16_units(torch.device(settings.device)):
        return ()
    if size.exp == "ddpm_digits":
        return tuple(of(precision, 0.8))
    return tuple([*of("32-true", 0.6), *of(precision, 0.95)] if bf16 else of(precision, 0.95))


def _share(size: Size, step: Step, settings: Settings) -> Row:
    """100 update / (compute + update)."""
    halves = {"compute": step.compute, "update": step.update}
    found = alternate(halves, settings.repeats(7), 1)
    shares = Timing(
        tuple(
            100 * update / (compute + update)
            for compute, update in zip(found["compute"].seconds, found["update"].seconds, strict=True)
        )
    )
    return timed(size.title, shares, 1, bounds=(Bound("share", shares.median, 6),))
