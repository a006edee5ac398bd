"""The pictures that generated images are conditioned on, by number."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from score_lightning.conditional import Condition, Given, Measurement
from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import Range
from score_lightning.runtime.randomness import ImageNoise, derive_seed


@dataclass(frozen=True)
class Conditions:
    """What images are given: image i what was observed of picture i modulo their number.

    Args:
        condition: of the model.
        observe: y (B, ...) of the pictures with numbers int64 (B,).
        count: number of pictures.
        key: tells them from all others.
        labels: int64 (count,), of the pictures; None where they have none.
        exact: whether images keep y exactly, as a part of them that is known.
        truths: the images that y was observed of; None where they are not known.
    """

    condition: Condition
    observe: Callable[[Tensor], Tensor]
    count: int
    key: str
    labels: Tensor | None = None
    exact: bool = False
    truths: ImageSet | None = None

    def numbers(self, indices: Sequence[int] | Tensor) -> Tensor:
        """int64 (B,): of the pictures that images with these indices are given."""
        return torch.as_tensor(indices) % self.count

    def given(self, indices: Sequence[int], device: torch.device) -> Given:
        """What the network is given for images with these indices."""
        return Given(self.condition, self.condition.present(self.observe(self.numbers(indices)).to(device)))

    def measurement(self, indices: Sequence[int], device: torch.device) -> Measurement | None:
        """What images with these indices keep exactly, if they do."""
        return self.condition.measurement(self.observe(self.numbers(indices)).to(device)) if self.exact else None

    def around(self, images: Tensor, pixels: Range) -> list[Tensor]:
        """Images 0 to n - 1, (n, C, H, W), between the pictures that they are given and the truths, as far as known."""
        truths = [] if self.truths is None else [self.truths[self.numbers(range(len(images)))]]
        return [self.shown(len(images), pixels), images, *truths]

    def shown(self, n: int, pixels: Range) -> Tensor:
        """(n, K, H, W) in the type of images: the pictures of images 0 to n - 1, as the network sees them."""
        picture = self.given(range(n), torch.device("cpu")).picture
        return pixels.decode(picture[:, : picture.shape[1] - self.condition.marks])


def of_images(condition: Condition, images: ImageSet, pixels: Range) -> Conditions:
    """What is observed of images, or of the pictures that they are paired with; masks are functions of the number."""
    pictures = images if images.conditions is None else images.conditions

    def observe(numbers: Tensor) -> Tensor:
        noise = ImageNoise(derive_seed("condition"), numbers.tolist())
        return condition.observe(pixels.encode(pictures[numbers]), noise)

    return Conditions(condition, observe, len(images), pictures.sha256, images.labels, truths=images)


def of_observed(condition: Condition, y: Tensor, exact: bool = False) -> Conditions:
    """What was observed (N, ...), in the model's range."""
    key = hashlib.sha256(repr(y.shape).encode() + y.numpy().tobytes()).hexdigest()
    return Conditions(condition, lambda numbers: y[numbers], len(y), f"{key} {exact}", exact=exact)
