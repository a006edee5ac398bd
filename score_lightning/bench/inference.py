"""The forward pass of the networks, without gradients: most of the cost of sampling."""

from collections.abc import Callable
from typing import Any

import torch

from score_lightning.bench import ours, peers
from score_lightning.bench.settings import Settings, Size, sizes
from score_lightning.bench.tables import Table, timed
from score_lightning.bench.timing import alternate

PRECISIONS = {"float32": False, "bf16": True}


def run(settings: Settings) -> list[Table]:
    """A table for each network and precision."""
    return [table for size in sizes(settings) for table in _tables(size, settings)]


def _tables(size: Size, settings: Settings) -> list[Table]:
    device = settings.device
    found = list(peers.available(size, device))
    nets: dict[str, Any] = {"score_lightning": ours.build_model(size).to(device).eval().net}
    nets |= {peer.name: peer.forward for peer in found}
    for peer in found:
        peer.net.eval()
    notes = {peer.name: peer.note for peer in found}
    functions = {
        f"{title} {name}": _forward(net, size, device, bf16)
        for title, bf16 in PRECISIONS.items()
        for name, net in nets.items()
    }
    timings = alternate(functions, settings.repeats(15), 0 if settings.quick else 2)
    return [
        Table(
            f"Forward pass, {size.title}, batch {size.batch}, {title}",
            "ms",
            [
                timed(
                    name,
                    timings[f"{title} {name}"],
                    peer=name in notes,
                    same=all(peer.same for peer in found if peer.name == name),
                    note=notes.get(name, ""),
                )
                for name in nets
            ],
        )
        for title in PRECISIONS
    ]


def _forward(net: Callable[..., Any], size: Size, device: str, bf16: bool) -> Callable[[], None]:
    x, t = ours.inputs(size, device)

    def forward() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            net(x, t)

    return forward
