"""Generation: image i is a function of (seed, i), whatever the batch it is in and the process that draws it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.models import ScoreModel
from score_lightning.pixels import PixelRange
from score_lightning.randomness import ImageNoise
from score_lightning.samplers import Sampler


@dataclass(frozen=True)
class Generator:
    """How a model's images are made.

    Args:
        sampler: from noise to x_0.
        shape: (C, H, W) of an image.
        pixels: range of pixels in the model.
        batch_size: images sampled at once.
    """

    sampler: Sampler
    shape: tuple[int, int, int]
    pixels: PixelRange
    batch_size: int = 256

    def batch(
        self,
        model: ScoreModel,
        indices: Sequence[int],
        seed: int,
        progress: bool = False,
        observe: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """uint8 images (len(indices), C, H, W)."""
        noise = ImageNoise(seed, indices)
        device = next(model.parameters()).device
        x = model.schedule.prior((len(indices), *self.shape), noise, device=device)
        return self.pixels.decode(self.sampler(model, x, noise, progress, observe))

    def __call__(
        self, model: ScoreModel, n: int, seed: int, rank: int = 0, ranks: int = 1, progress: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(indices int64 (B,), uint8 images (B, C, H, W)) of images 0 .. n - 1, batches dealt to the ranks in turn."""
        batches: Sequence[Tensor] = torch.arange(n).split(self.batch_size)[rank::ranks]
        with tqdm(
            total=sum(map(len, batches)),
            unit="image",
            desc="generating",
            disable=None if progress else True,
            leave=False,
        ) as bar:
            for indices in batches:
                yield indices, self.batch(model, indices.tolist(), seed, progress)
                bar.update(len(indices))
