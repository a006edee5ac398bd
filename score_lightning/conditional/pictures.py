"""What pictures images are conditioned on: made of the images themselves, or coming with them.

y is observed of an image, and presented to the network as further channels of the size of its input. Where pictures are
dropped in training, for guidance, all these channels are 0; as pictures have zeros of their own, one more channel of
ones then tells a picture from none.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from score_lightning.conditional.measurement import Measurement, colorization, upsampling
from score_lightning.conditional.operators import BicubicDownsample, Downsample, Gray, Operator
from score_lightning.models import Estimate
from score_lightning.schedules import RandnLike


@dataclass(frozen=True)
class Condition:
    """What pictures images are conditioned on: how y is observed of a picture, and how the network is shown y.

    Args:
        drop: share of training images without a picture.
        guidance: weight w in sampling, see `PictureConditioned`.

    Attributes:
        partial: whether y is a part of the image, which every estimate holds as it is, and has a channel that is 0
            where nothing is known; zeros are no picture then.
        of_one_size: whether pictures that a user gives must be of the size of `given_shape`, or are brought to it.

    Raises:
        ValueError: unless 0 <= drop < 1.
    """

    drop: float = 0.0
    guidance: float = 0.0
    partial: ClassVar[bool] = False
    of_one_size: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop must lie between 0 and 1, 1 excluded, got {self.drop:g}")

    @property
    def marks(self) -> int:
        """Channels, the last ones, that mark what is known rather than show it."""
        return int(self.partial or self.drop > 0)

    @property
    def operator(self) -> Operator | None:
        """A of y = A x_0, where all images have the same; None for others."""
        return None

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses images of a shape (C, H, W) that it makes no sense of.

        Raises:
            ValueError: with the reason.
        """

    def shown_channels(self, image_channels: int) -> int:
        """Channels of the picture that the network is shown, beside the marks."""
        return image_channels

    def channels(self, image_channels: int) -> int:
        """Channels that the network takes beside those of the image."""
        return self.shown_channels(image_channels) + self.marks

    def observe(self, picture: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:  # noqa: ARG002
        """y of pictures (B, C, H, W) in the model's range: the images, or those that they are paired with."""
        return picture if self.operator is None else self.operator.forward(picture)

    def given_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C, H, W) of pictures that a user gives, in place of images of a shape (C, H, W) to observe something of."""
        return shape

    def read(self, picture: Tensor, known: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """y of pictures (B, C, H, W) that a user gives, and of the pixels known, bool (B or 1, 1, H, W), of some."""
        return self.observe(picture)

    def present(self, y: Tensor) -> Tensor:
        """(B, K, H, W), what the network is given of y (B, ...): K = `channels`."""
        picture = self._picture(y)
        return picture if self.partial or not self.marks else F.pad(picture, (0, 0, 0, 0, 0, 1), value=1.0)

    def __call__(self, picture: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B, K, H, W), what the network is given of what is observed of pictures (B, C, H, W)."""
        return self.present(self.observe(picture, randn_like))

    def _picture(self, y: Tensor) -> Tensor:
        return y

    def impose(self, estimate: Estimate, given: Tensor) -> Estimate:  # noqa: ARG002
        """The estimate with what is known exactly put in, given (B, K, H, W)."""
        return estimate

    def measurement(self, y: Tensor) -> Measurement:  # noqa: ARG002
        """y (B, ...) as a part of the images that is known exactly.

        Raises:
            ValueError: where it is none.
        """
        raise ValueError("a picture that images are paired with is no part of them that samples could keep")


@dataclass(frozen=True)
class LowResolution(Condition):
    """A smaller picture, brought back to the size of the images by bicubic interpolation (Saharia et al. 2022a).

    Args:
        factor: by which it is smaller.
        shrink: how: `mean`, of squares of factor x factor pixels, or `bicubic`, with antialiasing.

    Raises:
        ValueError: when the factor is below 2, or shrink is unknown.
    """

    factor: int = 4
    shrink: Literal["mean", "bicubic"] = "mean"
    of_one_size: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 2:
            raise ValueError(f"factor must be 2 or more, got {self.factor}")
        if self.shrink not in ("mean", "bicubic"):
            raise ValueError(f"shrink must be mean or bicubic, got {self.shrink!r}")

    @property
    def operator(self) -> Operator:
        """The means of squares, or the bicubic interpolation."""
        return Downsample(self.factor) if self.shrink == "mean" else BicubicDownsample(self.factor)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses images whose sides the factor does not divide.

        Raises:
            ValueError: with the sides.
        """
        if any(side % self.factor for side in shape[1:]):
            raise ValueError(f"factor must divide the sides of the images, {shape[1]} x {shape[2]}, got {self.factor}")

    def given_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the smaller pictures."""
        return (shape[0], *(side // self.factor for side in shape[1:]))

    def read(self, picture: Tensor, known: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The smaller pictures."""
        return picture

    def _picture(self, y: Tensor) -> Tensor:
        # with antialiasing, which changes nothing else here, the kernel is Pillow's and TensorFlow's
        size = [self.factor * side for side in y.shape[2:]]
        return F.interpolate(y, size, mode="bicubic", antialias=True)

    def measurement(self, y: Tensor) -> Measurement:
        """The means of squares.

        Raises:
            ValueError: for pictures shrunk bicubically.
        """
        if self.shrink != "mean":
            raise ValueError(
                "pictures shrunk bicubically are no part of the image that samples could keep exactly: train with "
                "condition.shrink=mean"
            )
        return upsampling(y, self.factor)


@dataclass(frozen=True)
class Grayscale(Condition):
    """The mean of the channels."""

    @property
    def operator(self) -> Operator:
        """That mean."""
        return Gray()

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuses gray images.

        Raises:
            ValueError: with the alternative.
        """
        if shape[0] < 2:
            raise ValueError("gray images have no colors to find: set images.channels=3")

    def shown_channels(self, image_channels: int) -> int:  # noqa: ARG002
        """1."""
        return 1

    def measurement(self, y: Tensor) -> Measurement:
        """The mean of the channels."""
        return colorization(y)


@dataclass(frozen=True)
class Paired(Condition):
    """The picture that comes with an image.

    Args:
        picture_channels: its channels; those of the images when None.
    """

    picture_channels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.picture_channels is not None and self.picture_channels < 1:
            raise ValueError(f"picture_channels must be positive, got {self.picture_channels}")

    def shown_channels(self, image_channels: int) -> int:
        """Those of the picture."""
        return self.picture_channels or image_channels

    def given_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the pictures."""
        return (self.shown_channels(shape[0]), *shape[1:])
