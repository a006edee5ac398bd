"""The forward pass of the networks, without gradients: most of the cost of sampling."""

from collections.abc import Callable
from typing import Any

import torch

from score_lightning.bench import ours, peers
from score_lightning.bench.peers import Peer
from score_lightning.bench.settings import OURS, Settings, Size, sizes
from score_lightning.bench.tables import Row, Table, timed
from score_lightning.bench.timing import Timing, alternate

PRECISIONS = {"float32": False, "bf16": True}


def run(settings: Settings) -> list[Table]:
    """A table for each network and precision."""
    return [table for size in sizes(settings) for table in _tables(size, settings)]


def _tables(size: Size, settings: Settings) -> list[Table]:
    device = settings.device
    others = {peer.name: peer for peer in peers.available(size, device)}
    for peer in others.values():
        peer.net.eval()
    nets: dict[str, Any] = {OURS: ours.build_model(size).to(device).eval().net}
    nets |= {name: peer.forward for name, peer in others.items()}
    functions = {
        f"{title} {name}": _forward(net, size, device, bf16)
        for title, bf16 in PRECISIONS.items()
        for name, net in nets.items()
    }
    timings = alternate(functions, settings.repeats(15), settings.warmup(2))
    return [
        Table(
            f"Forward pass, {size.title}, batch {size.batch}, {title}",
            "ms",
            [_row(name, timings[f"{title} {name}"], others.get(name)) for name in nets],
        )
        for title in PRECISIONS
    ]


def _row(name: str, timing: Timing, peer: Peer | None) -> Row:
    return timed(name, timing) if peer is None else timed(name, timing, peer=True, same=peer.same, note=peer.note)


def _forward(net: Callable[..., Any], size: Size, device: str, bf16: bool) -> Callable[[], None]:
    x, t = ours.inputs(size, device)

    def forward() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            net(x, t)

    return forward
