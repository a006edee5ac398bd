"""The trace of a score's Jacobian: exact, with one backward pass per dimension, or along one random direction.

Implicit score matching and exact likelihoods need the former, sliced score matching and Hutchinson's estimator the
latter (Song et al. 2019, Sec. 3; Hutchinson 1990). The network is the MLP of the toy experiments.
"""

from collections.abc import Callable

import torch

from score_lightning.bench.settings import Settings
from score_lightning.bench.tables import Curves, Table, timed
from score_lightning.bench.timing import alternate, drop
from score_lightning.divergence import along, exact
from score_lightning.networks import MLP

BATCH = 64


def run(settings: Settings) -> list[Table]:
    """One table, with its curve."""
    dims = [2, 8] if settings.quick else [2, 8, 32, 128, 512, 2048]
    rows = []
    lines: dict[str, list[tuple[float, float]]] = {"exact": [], "sliced": []}
    for dim in dims:
        timings = alternate(_functions(dim, settings.device), settings.repeats(5), 1)
        for name, timing in timings.items():
            ratio = timings["exact"].median / timings["sliced"].median
            note = f"{ratio:.3g} times the sliced" if name == "exact" else ""
            rows.append(timed(f"{name}, {dim} dimensions", timing, note=note))
            lines[name].append((dim, 1e3 * timing.median))
    curves = Curves("dimensions", "ms", lines, log_y=True)
    return [Table(f"Trace of the Jacobian, batch {BATCH}", "ms", rows, curves=[curves])]


def _functions(dim: int, device: str) -> dict[str, Callable[[], None]]:
    net = MLP(dim).to(device).requires_grad_(False)
    x, c = torch.randn(BATCH, dim, device=device, requires_grad=True), torch.zeros(BATCH, device=device)
    v = torch.randn(BATCH, dim, device=device).sign()
    return {"exact": lambda: drop(exact(net(x, c), x)), "sliced": lambda: drop(along(v, net(x, c), x))}
