"""NCSN's and NCSNv2's networks: RefineNets with dilated convolutions and instance norm++.

Stages of residual blocks, the last two dilated instead of shrunk, are merged from the deepest up by refine blocks (Lin
et al. 2017). NCSN conditions every normalization on the noise level (Song & Ermon 2019, App. A). NCSNv2 does not
condition on it: its norms have no levels, its refine blocks no norms, and its pooling takes the largest instead of the
average (Song & Ermon 2020, App. A and its code).
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.networks.layers import Block
from score_lightning.networks.norms import ConditionalInstanceNormPlus, InstanceNormPlus, NoNorm, Norm


class ResidualBlock(Block):
    """skip(x) + conv(elu(norm(conv(elu(norm(x)))))).

    Args:
        dilation: of both 3x3 convolutions.
        shrink: whether to halve the resolution, by averaging 2 x 2 pixels after the second convolution.

    The skip is the identity where the width stays and the block neither shrinks nor, by `project`, has a convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: Norm, dilation: int = 1, shrink: bool = False, project: bool = False
    ) -> None:
        super().__init__()
        middle = inputs if shrink or project else outputs
        self.shrink = shrink
        self.norm_1 = norm(inputs)
        self.conv_1 = nn.Conv2d(inputs, middle, 3, padding=dilation, dilation=dilation)
        self.norm_2 = norm(middle)
        self.conv_2 = nn.Conv2d(middle, outputs, 3, padding=dilation, dilation=dilation)
        self.skip: nn.Module = nn.Identity()
        if shrink:
            self.skip = nn.Conv2d(inputs, outputs, 1)
        elif project:
            self.skip = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, outputs, H, W), or half of H and W, from x (B, inputs, H, W) and level (B,)."""
        h = self.conv_1(F.elu(self.norm_1(x, level)))
        h = self.skip(x) + self.conv_2(F.elu(self.norm_2(h, level)))
        return F.avg_pool2d(h, 2) if self.shrink else h


class ConvUnits(Block):
    """Residual convolution units: `units` times x + two of (norm, elu, conv)."""

    def __init__(self, channels: int, units: int, norm: Norm) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norm(channels) for _ in range(2 * units))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2 * units))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W) and level (B,)."""
        for i in range(0, len(self.convs), 2):
            h = self.convs[i](F.elu(self.norms[i](x, level)))
            x = x + self.convs[i + 1](F.elu(self.norms[i + 1](h, level)))
        return x


class ChainedPooling(Block):
    """elu(x) plus a chain of (norm, 5x5 pooling, conv), each link added: background context."""

    def __init__(self, channels: int, links: int, norm: Norm, largest: bool) -> None:
        super().__init__()
        pooling = nn.MaxPool2d if largest else nn.AvgPool2d
        self.pool = pooling(5, stride=1, padding=2)
        self.norms = nn.ModuleList(norm(channels) for _ in range(links))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(links))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W) and level (B,)."""
        x = path = F.elu(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(self.pool(norm(path, level)))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Convolution units on each input, the inputs summed at the first one's resolution, pooling, convolution units."""

    def __init__(self, inputs: Sequence[int], outputs: int, norm: Norm, units: int = 1, largest: bool = False) -> None:
        super().__init__()
        fused = list(inputs) if len(inputs) > 1 else []
        self.adapt = nn.ModuleList(ConvUnits(width, 2, norm) for width in inputs)
        self.fuse_norms = nn.ModuleList(norm(width) for width in fused)
        self.fuse_convs = nn.ModuleList(nn.Conv2d(width, outputs, 3, padding=1) for width in fused)
        self.pool = ChainedPooling(outputs, 2, norm, largest)
        self.out = ConvUnits(outputs, units, norm)

    def forward(self, xs: Sequence[Tensor], level: Tensor) -> Tensor:
        """(B, outputs, H, W) from xs, each (B, input, h, w), the first with h, w = H, W, and level (B,)."""
        hs = [adapt(x, level) for adapt, x in zip(self.adapt, xs, strict=True)]
        h = hs[0]
        if len(hs) > 1:
            fused = zip(self.fuse_norms, self.fuse_convs, hs, strict=True)
            h, *others = [_resize(conv(norm(h, level)), xs[0]) for norm, conv, h in fused]
            h = sum(others, h)
        return self.out(self.pool(h, level), level)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


class RefineNet(nn.Module):
    """NCSN's network. The defaults are its CIFAR-10 configuration (30,117,635 parameters).

    Args:
        image_channels: channels of the images, whose range is [0, 1].
        channels: width of the first stage.
        levels: number of noise levels.
        multipliers: width of each stage, in units of `channels`.
        dilations: of each stage's convolutions; a stage after the first with dilation 1 halves the resolution instead.
        conditional: whether the norms are conditioned on the level; without, it is NCSNv2's network.
        condition_channels: of a picture that images are conditioned on, beside `image_channels` in the input.

    Raises:
        ValueError: when a number is not positive, or there are not as many dilations as multipliers.
    """

    def __init__(
        self,
        image_channels: int = 3,
        channels: int = 128,
        levels: int = 10,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 2, 4),
        conditional: bool = True,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        if len(multipliers) < 2 or min(channels, levels, *multipliers, *dilations) < 1:
            raise ValueError(
                f"channels, levels, multipliers (two or more) and dilations must be positive, got {channels}, {levels},"
                f" {list(multipliers)} and {list(dilations)}"
            )
        if len(dilations) != len(multipliers) or dilations[0] != 1:
            raise ValueError(
                f"there must be a dilation for each multiplier, the first 1; got {list(dilations)} for "
                f"{list(multipliers)}"
            )
        norm: Norm = partial(ConditionalInstanceNormPlus, levels=levels) if conditional else InstanceNormPlus
        widths = [channels * m for m in multipliers]
        self.dilations, self.halvings = tuple(dilations), list(dilations).count(1) - 1
        self.condition_channels = condition_channels
        self.conv_in = nn.Conv2d(image_channels + condition_channels, widths[0], 3, padding=1)
        self.stages = nn.ModuleList(
            _stage(before, width, norm, dilation, first=i == 0)
            for i, (before, width, dilation) in enumerate(
                zip([widths[0], *widths[:-1]], widths, dilations, strict=True)
            )
        )
        self.refine = nn.ModuleList(_refine_blocks(widths, norm if conditional else NoNorm, largest=not conditional))
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], image_channels, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from images x (B, C, H, W) in [0, 1] and the level (B,), int64, counted from the largest sigma.

        Raises:
            ValueError: when the sides of the images cannot be halved as often as the network does.
        """
        if any(side % 2**self.halvings for side in x.shape[2:]):
            raise ValueError(
                f"this network takes images whose sides are multiples of {2**self.halvings}, got {tuple(x.shape[2:])}"
            )
        h = self.conv_in(2 * x - 1)
        features = []
        for stage in self.stages:
            for block in stage.children():
                h = block(h, level)
            features.append(h)
        h = self.refine[0]([features[-1]], level)
        for refine, feature in zip(list(self.refine)[1:], features[-2::-1], strict=True):
            h = refine([feature, h], level)
        return self.conv_out(F.elu(self.norm_out(h, level)))


def _stage(inputs: int, outputs: int, norm: Norm, dilation: int, first: bool) -> nn.ModuleList:
    """Two residual blocks; but for the first stage, the first of them shrinks or is dilated."""
    shrink, project = not first and dilation == 1, not first and dilation > 1
    return nn.ModuleList(
        [
            ResidualBlock(inputs, outputs, norm, dilation, shrink, project),
            ResidualBlock(outputs, outputs, norm, dilation),
        ]
    )


def _refine_blocks(widths: Sequence[int], norm: Norm, largest: bool) -> list[RefineBlock]:
    """From the deepest stage up; each returns as many channels as the stage that it is merged with next has."""
    blocks = [RefineBlock([widths[-1]], widths[-1], norm, largest=largest)]
    deeper = widths[-1]
    for i in reversed(range(len(widths) - 1)):
        outputs = widths[max(i - 1, 0)]
        blocks.append(RefineBlock([widths[i], deeper], outputs, norm, units=3 if i == 0 else 1, largest=largest))
        deeper = outputs
    return blocks
