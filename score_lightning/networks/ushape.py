"""The shape that all U-Nets here share: levels of halved resolution down and up, joined by skips.

A level is some residual blocks, at some resolutions with self-attention. The way up takes what the way down left. An
image pyramid may accompany the way down, and another one gather the result on the way up (Song et al. 2021a, App. H.1).
"""

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Literal

import torch
from torch import Tensor, nn

from score_lightning.networks.blocks import (
    GrowConv,
    ResidualBlock,
    ShrinkConv,
    Style,
    conv,
    double,
    halve,
    init,
    project,
)

PyramidIn = Literal["none", "residual", "skip"]
PyramidOut = Literal["none", "skip"]
Times = dict[nn.Module, Tensor]  # what each residual block adds of the embedding

Size = int | tuple[int, int]
"""Of squares, or (height, width), in pixels."""


class UShape(nn.Module):
    """Residual blocks in the shape of a U, from images and an embedding to `outputs` channels.

    Args:
        image_size: height and width of the images in pixels, one number of squares.
        image_channels: channels of the images.
        outputs: channels of the result.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each next level has half the resolution.
        blocks: residual blocks per level.
        attention: resolutions, in pixels, at which blocks are followed by self-attention.
        style: of the residual blocks.
        features: width of the features that the embedding is made of.
        attend_last: whether on the way up only the last block of a level is followed by attention.
        by_blocks: whether resolution changes in residual blocks; else in strided and repeating convolutions.
        symmetric: how strided convolutions pad, see `ShrinkConv`.
        pyramid_in: `skip` adds the shrunk image by a 1 x 1 convolution, `residual` shrinks and adds by convolutions
            what was added before.
        pyramid_out: `skip` sums results of every level.
        unit_range: whether images lie in [0, 1]; else in [-1, 1].

    Raises:
        ValueError: when the image size cannot be halved that often, or the style does not suit a width.
    """

    def __init__(
        self,
        image_size: Size,
        image_channels: int,
        outputs: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        style: Style,
        features: int,
        attend_last: bool = False,
        by_blocks: bool = False,
        symmetric: bool = False,
        pyramid_in: PyramidIn = "none",
        pyramid_out: PyramidOut = "none",
        unit_range: bool = False,
    ) -> None:
        super().__init__()
        check_levels(image_size, channels, multipliers, blocks)
        self.image_size, self.channels, self.multipliers, self.blocks = image_size, channels, multipliers, blocks
        self.style, self.attend_last, self.by_blocks = style, attend_last, by_blocks
        self.symmetric, self.unit_range = symmetric, unit_range
        self.pyramid_kinds = (pyramid_in, pyramid_out)
        widths = [channels * m for m in multipliers]
        before, after = [channels, *widths[:-1]], [*widths[1:], widths[-1]]
        shortest = min(sides(image_size))
        self.attend = attend = [shortest // 2**i in attention for i in range(len(widths))]

        self.time_1 = init(nn.Linear(features, style.embedding))
        self.time_2 = init(nn.Linear(style.embedding, style.embedding))
        self.conv_in = conv(image_channels, channels)
        self.down = nn.ModuleList(
            _level(chain([b], repeat(w, blocks - 1)), w, repeat(a, blocks), style)
            for b, w, a in zip(before, widths, attend, strict=True)
        )
        self.shrink = nn.ModuleList(_shrink(width, style, by_blocks, symmetric) for width in widths[:-1])
        self.middle = _level([widths[-1]] * 2, widths[-1], [True, False], style)
        # a block on the way up takes what the way down left: the outputs of its level's blocks, then the level's input
        self.up = nn.ModuleList(
            _level(
                chain([n + w], repeat(2 * w, blocks - 1), [w + b]),
                w,
                chain(repeat(a and not attend_last, blocks), [a]),
                style,
            )
            for n, w, b, a in zip(after, widths, before, attend, strict=True)
        )
        self.grow = nn.ModuleList(_grow(width, style, by_blocks) for width in widths[1:])
        self._build_pyramids(image_channels, outputs, widths)
        self.norm_out = style.norm(widths[0])
        self.conv_out = conv(widths[0], outputs, scale=0)
        self._blocks = [module for module in self.modules() if isinstance(module, ResidualBlock)]

    def _build_pyramids(self, image_channels: int, outputs: int, widths: Sequence[int]) -> None:
        pyramid_in, pyramid_out = self.pyramid_kinds
        if pyramid_in == "residual":
            carried = [image_channels, *widths[:-1]][:-1]
            self.pyramid_in = nn.ModuleList(
                ShrinkConv(c, w, self.style.fir) for c, w in zip(carried, widths[:-1], strict=True)
            )
        elif pyramid_in == "skip":
            self.pyramid_in = nn.ModuleList(conv(image_channels, width, size=1) for width in widths[:-1])
        if pyramid_out == "skip":
            self.pyramid_out = nn.ModuleList(
                nn.Sequential(self.style.norm(width), nn.SiLU(), conv(width, outputs, scale=0)) for width in widths[1:]
            )

    def body(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, outputs, H, W) from images x (B, C, H, W) and the activated embedding (B, style.embedding).

        Raises:
            ValueError: when the images are not of the size that the network was built for.
        """
        check_images(x, self.image_size)
        times = project(embedding, self._blocks)
        h, skips = self._descend(2 * x - 1 if self.unit_range else x, times)
        for block in self.middle.children():
            h = block(h, times[block])
        gathered = None
        for i in reversed(range(len(self.up))):
            for block in self.up[i].children():
                h = block(torch.cat([h, skips.pop()], 1), times[block])
            if i > 0 and self.pyramid_kinds[1] == "skip":
                gathered = self._gather(gathered, self.pyramid_out[i - 1](h))
            if i > 0:
                h = _resize(self.grow[i - 1], h, times)
        return self._gather(gathered, self.conv_out(self.norm_out.activated(h)))

    def _descend(self, x: Tensor, times: Times) -> tuple[Tensor, list[Tensor]]:
        """The lowest level's result, and all results on the way."""
        h, pyramid = self.conv_in(x), x
        skips = [h]
        for i, level in enumerate(self.down):
            for block in level.children():
                h = block(h, times[block])
                skips.append(h)
            if i < len(self.shrink):
                h = _resize(self.shrink[i], h, times)
                if self.pyramid_kinds[0] == "residual":
                    h = pyramid = self.style.join(self.pyramid_in[i](pyramid), h)
                elif self.pyramid_kinds[0] == "skip":
                    pyramid = halve(pyramid, self.style.fir)
                    h = self.pyramid_in[i](pyramid) + h
                skips.append(h)
        return h, skips

    def _gather(self, gathered: Tensor | None, result: Tensor) -> Tensor:
        return result if gathered is None else double(gathered, self.style.fir) + result


def _level(inputs: Iterable[int], width: int, attends: Iterable[bool], style: Style) -> nn.ModuleList:
    """Residual blocks from these numbers of channels to width, with self-attention where `attends`."""
    return nn.ModuleList(ResidualBlock(i, width, style, a) for i, a in zip(inputs, attends, strict=True))


def _shrink(width: int, style: Style, by_blocks: bool, symmetric: bool) -> nn.Module:
    if by_blocks:
        return ResidualBlock(width, width, style, resample="halve")
    return ShrinkConv(width, width, symmetric=symmetric)


def _grow(width: int, style: Style, by_blocks: bool) -> nn.Module:
    return ResidualBlock(width, width, style, resample="double") if by_blocks else GrowConv(width, width)


def _resize(module: nn.Module, h: Tensor, times: Times) -> Tensor:
    return module(h, times[module]) if isinstance(module, ResidualBlock) else module(h)


def sides(image_size: Size) -> tuple[int, int]:
    """(height, width) of images."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def check_images(x: Tensor, image_size: Size) -> None:
    """Refuses images x (B, C, H, W) of another size.

    Raises:
        ValueError: unless H and W are image_size.
    """
    if x.shape[2:] != sides(image_size):
        raise ValueError(f"this network takes images of {image_size} pixels, got {tuple(x.shape[2:])}")


def check_levels(image_size: Size, channels: int, multipliers: Sequence[int], blocks: int) -> None:
    """Refuses levels that make no sense.

    Raises:
        ValueError: when a number is not positive, or the image size cannot be halved that often.
    """
    if not multipliers or min(channels, blocks, *multipliers) < 1:
        raise ValueError("there must be at least one level, and channels and blocks of each must be positive")
    halvings = len(multipliers) - 1
    if any(side % 2**halvings for side in sides(image_size)):
        size = " x ".join(map(str, dict.fromkeys(sides(image_size))))
        raise ValueError(
            f"{len(multipliers)} levels halve the image {halvings} times, so its sides must each be a multiple of "
            f"{2**halvings}; got {size}. Use fewer levels or another image size"
        )


def check_classes(classes: int | None) -> None:
    """Refuses a number of classes that makes no sense.

    Raises:
        ValueError: when it is not positive.
    """
    if classes is not None and classes < 1:
        raise ValueError(f"classes must be positive, or none, got {classes}")
