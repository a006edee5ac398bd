"""NCSN++ and DDPM++, the U-Nets of the score SDEs (Song et al. 2021a, App. H) and of EDM (Karras et al. 2022).

Against DDPM's U-Net: resolution changes in BigGAN's residual blocks, sums with a skip are divided by the square root of
2, attention on the way up follows a level's last block only. NCSN++ adds the filter (1, 3, 3, 1) to every change of
resolution, Fourier features of ln sigma, and an image pyramid; DDPM++ has none of the three.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.networks.blocks import Style, init
from score_lightning.networks.embedding import Fourier, sinusoidal
from score_lightning.networks.ushape import PyramidIn, PyramidOut, Size, UShape, check_classes


class NCSNpp(UShape):
    """NCSN++. The defaults are its continuous CIFAR-10 configuration (62,758,915 parameters, 128 of them frozen).

    Args:
        image_size: height and width of the images in pixels, one number of squares.
        image_channels: channels of the images.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each next level has half the resolution.
        blocks: residual blocks per level.
        attention: resolutions, in pixels, at which a level has self-attention.
        dropout: probability inside the residual blocks.
        embedding: of the conditioning, `fourier` or `positional`.
        fourier_scale: standard deviation of the Fourier frequencies.
        fourier_counted: whether those count as parameters; not in EDM.
        fir: whether resolution changes by the filter (1, 3, 3, 1) rather than by repeating and averaging.
        pyramid_in: how shrunk images reach the levels on the way down: none, residual or skip, see `UShape`.
        pyramid_out: whether every level adds to the result: none or skip.
        unit_range: whether images lie in [0, 1]; else in [-1, 1].
        classes: of labels, added to the embedded conditioning; None without labels.
        augmentation: width of the description of augmentations, added likewise; 0 for none.
        condition_channels: of a picture that images are conditioned on, beside `image_channels` in the input.

    Raises:
        ValueError: when the image size cannot be halved that often, or an option is unknown.
    """

    def __init__(
        self,
        image_size: Size = 32,
        image_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        dropout: float = 0.0,
        embedding: Literal["fourier", "positional"] = "fourier",
        fourier_scale: float = 16.0,
        fourier_counted: bool = True,
        fir: bool = True,
        pyramid_in: PyramidIn = "residual",
        pyramid_out: PyramidOut = "none",
        unit_range: bool = False,
        classes: int | None = None,
        augmentation: int = 0,
        condition_channels: int = 0,
    ) -> None:
        check_classes(classes)
        features = 2 * channels if embedding == "fourier" else channels
        super().__init__(
            image_size=image_size,
            image_channels=image_channels + condition_channels,
            outputs=image_channels,
            channels=channels,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            style=Style(
                embedding=4 * channels, dropout=dropout, group_size=4, rescale=True, fir=fir, attention_scale=0.1
            ),
            features=features,
            attend_last=True,
            by_blocks=True,
            symmetric=False,
            pyramid_in=pyramid_in,
            pyramid_out=pyramid_out,
            unit_range=unit_range,
        )
        self.features, self.classes, self.augmentation = features, classes, augmentation
        self.condition_channels = condition_channels
        self.fourier = Fourier(features, fourier_scale, fourier_counted) if embedding == "fourier" else None
        if classes is not None:
            self.label = init(nn.Linear(classes, features))
        if augmentation:
            self.augment = init(nn.Linear(augmentation, features, bias=False))

    def forward(self, x: Tensor, c: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None) -> Tensor:
        """(B, C, H, W) from images, the noise, and what else the network is conditioned on.

        Args:
            x: images (B, C, H, W).
            c: the conditioning (B,).
            labels: int64 (B,), -1 for none.
            augmentation: (B, self.augmentation), how the images were augmented; None, which is 0, where they were not.

        Raises:
            ValueError: when the images are not of the size that the network was built for.
        """
        e = sinusoidal(c, self.features) if self.fourier is None else self.fourier(c)
        e = e.to(self.time_1.weight.dtype)
        if self.classes is not None:
            labels = torch.full_like(c, -1, dtype=torch.int64) if labels is None else labels
            one_hot = F.one_hot(labels + 1, self.classes + 1)[:, 1:].to(e.dtype)
            e = e + self.label(one_hot * math.sqrt(self.classes))
        if self.augmentation:  # also without: each parameter is part of every loss, on every process
            augmentation = c.new_zeros(len(c), self.augmentation) if augmentation is None else augmentation
            e = e + self.augment(augmentation.to(e.dtype))
        return self.body(x, F.silu(self.time_2(F.silu(self.time_1(e)))))
