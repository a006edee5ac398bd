"""A model of many images that takes them in parts."""

from dataclasses import replace

import torch
from torch import Tensor

from score_lightning.conditional import Wrapper
from score_lightning.models import Estimate, ScoreModel


def _joined(parts: list[Tensor]) -> Tensor:
    """Coefficients of parts of a batch, (), or (B, 1, ...) where they differ."""
    return parts[0] if parts[0].ndim == 0 else torch.cat(parts)


class InParts(Wrapper[ScoreModel]):
    """A model that takes at most so many images at once."""

    def __init__(self, model: ScoreModel, size: int) -> None:
        super().__init__(model)
        self._size = size

    def __call__(
        self, x_t: Tensor, t: Tensor, labels: Tensor | None = None, *, condition: Tensor | None = None
    ) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        parts = [
            self.model(
                x_t[i],
                t if t.ndim == 0 else t[i],
                None if labels is None else labels[i],
                condition=None if condition is None else condition[i],
            )
            for i in torch.arange(len(x_t), device=x_t.device).split(self._size)
        ]
        fractions = [part.fraction for part in parts if part.fraction is not None]
        return replace(
            parts[0],
            x_t=x_t,
            alpha=_joined([part.alpha for part in parts]),
            sigma=_joined([part.sigma for part in parts]),
            output=torch.cat([part.output for part in parts]),
            fraction=torch.cat(fractions) if fractions else None,
        )
