"""Features of images: what a network makes of them, tried out before any long work."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from score_lightning.errors import UserError


@dataclass(frozen=True)
class Probe:
    """What a feature network returns for images of one shape.

    Args:
        origin: (D,) float64, the features of a grey image: a point near the mean of all features.
        classes: number of class logits, None where it has none.
    """

    origin: Tensor
    classes: int | None


class Features:
    """A feature network with a name that its metrics carry.

    Args:
        name: of the features, such as inception: metrics are called fid_inception and so on.
        network: uint8 images (B, C, H, W) -> features (B, D), or (features, class logits (B, K)).
        sha256: of the network and its weights. Without it statistics of reference images are computed anew each time.
        settings: what else metrics.json says about the network, such as how it resizes.
    """

    def __init__(self, name: str, network: nn.Module, sha256: str | None = None, **settings: Any) -> None:
        self.name, self.sha256 = name, sha256
        self._network = network.eval().requires_grad_(False)
        self._settings = settings
        self._probes: dict[tuple[int, ...], Probe] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(features (B, D), logits (B, K) or None) of uint8 images (B, C, H, W), on their device."""
        network = self._network.to(images.device)
        # larger batches do not fit the processor's cache: half as fast
        found = [network(part) for part in images.split(32 if images.device.type == "cpu" else 256)]
        pairs = [part if isinstance(part, tuple) else (part, None) for part in found]
        features, logits = zip(*pairs, strict=True)
        return torch.cat(features), None if logits[0] is None else torch.cat(logits)

    def probe(self, shape: tuple[int, ...]) -> Probe:
        """What the network returns for images of shape (C, H, W); tried on the CPU.

        Raises:
            UserError: when it cannot take them, or returns something else than rows of finite features.
        """
        if shape not in self._probes:
            self._probes[shape] = self._try(shape)
        return self._probes[shape]

    def settings(self) -> dict[str, Any]:
        """What metrics.json says about the network."""
        return {"features": self.name, "features_sha256": self.sha256, **self._settings}

    def _try(self, shape: tuple[int, ...]) -> Probe:
        grey = torch.full((2, *shape), 128, dtype=torch.uint8)
        try:
            features, logits = self(grey)
        except Exception as error:  # whatever a network of the user's raises
            raise UserError(f"features {self.name} cannot take uint8 images of shape {shape}: {error}") from error
        for rows, what in ((features, "features (B, D)"), (logits, "class logits (B, K)")):
            if rows is not None and (rows.ndim != 2 or len(rows) != 2 or not rows.is_floating_point()):
                raise UserError(
                    f"features {self.name} must return {what}, floating-point rows, one for each image; got "
                    f"{rows.dtype} of shape {tuple(rows.shape)} for 2 images: pool or flatten them"
                )
        if not torch.isfinite(features).all():
            raise UserError(f"features {self.name} are not finite for a grey image: wrong weights or precision?")
        return Probe(features[0].double(), None if logits is None else logits.shape[1])
