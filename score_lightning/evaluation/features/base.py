"""Feature networks: images in, rows of features out; each is probed before any long computation."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.errors import UserError


@dataclass(frozen=True)
class Probe:
    """The output of a feature network for images of one shape.

    Args:
        origin: (D,) float64, the features of a gray image: a point near the mean of all features.
        classes: number of class logits; None where the network has none.
    """

    origin: Tensor
    classes: int | None


class Features:
    """A feature network, with the name that its metrics carry.

    Args:
        name: of the features, such as inception: metrics are called fid_inception and so on.
        network: images (B, C, H, W) as they are stored -> features (B, D), or (features, class logits (B, K)).
        sha256: of the network and its weights. Without it, statistics of reference images are never cached.
        settings: further entries of metrics.json, such as how the network resizes.
    """

    def __init__(self, name: str, network: nn.Module, sha256: str | None = None, **settings: Any) -> None:
        self.name, self.sha256 = name, sha256
        self._network = network.eval().requires_grad_(False)
        self._settings = settings
        self._probes: dict[tuple[tuple[int, ...], Depth], Probe] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (B, D), logits (B, K) or None) of images (B, C, H, W), on their device."""
        network = self._network.to(images.device)
        # larger batches do not fit the processor's cache: half as fast
        outputs = [network(part) for part in images.split(32 if images.device.type == "cpu" else 256)]
        pairs = [output if isinstance(output, tuple) else (output, None) for output in outputs]
        features, logits = zip(*pairs, strict=True)
        return torch.cat(features), None if logits[0] is None else torch.cat(logits)

    def probe(self, shape: tuple[int, ...], depth: Depth = EIGHT_BITS) -> Probe:
        """The network's output for images of shape (C, H, W) and a depth, computed on the CPU once.

        Raises:
            UserError: when it cannot take them, or returns anything but rows of finite features.
        """
        if (shape, depth) not in self._probes:
            self._probes[shape, depth] = self._try(shape, depth)
        return self._probes[shape, depth]

    def settings(self) -> dict[str, Any]:
        """The entries of metrics.json that describe the network."""
        return {"features": self.name, "features_sha256": self.sha256, **self._settings}

    def _try(self, shape: tuple[int, ...], depth: Depth) -> Probe:
        middle = (depth.black + depth.white) / 2
        gray = torch.full((2, *shape), middle if depth.levels is None else math.ceil(middle), dtype=depth.dtype)
        try:
            features, logits = self(gray)
        except Exception as error:  # whatever a network of the user's raises
            raise UserError(
                f"features {self.name} cannot take images of shape {shape} with pixels of {depth}: {error}"
            ) from error
        for rows, what in ((features, "features (B, D)"), (logits, "class logits (B, K)")):
            if rows is not None and (rows.ndim != 2 or len(rows) != 2 or not rows.is_floating_point()):
                raise UserError(
                    f"features {self.name} must return {what}, floating-point rows, one for each image; got "
                    f"{rows.dtype} of shape {tuple(rows.shape)} for 2 images: pool or flatten them"
                )
        if not torch.isfinite(features).all():
            raise UserError(f"features {self.name} are not finite for a gray image: wrong weights or precision?")
        return Probe(features[0].double(), None if logits is None else logits.shape[1])
