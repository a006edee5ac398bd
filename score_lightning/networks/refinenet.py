"""NCSN's network: a RefineNet with dilated convolutions and conditional instance norm++ (Song & Ermon 2019, App. A).

Four stages of residual blocks, the later two dilated instead of shrunk, are merged from the deepest up by refine
blocks (Lin et al. 2017). Every normalisation is conditioned on the noise level.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNormPlus(nn.Module):
    """Conditional instance norm++: gamma (instance_norm(x) + alpha m) + beta, with a row of each per noise level.

    Instance norm removes every channel's mean; m brings it back, standardised over channels (App. A, as in its code).
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(levels, 3 * channels)
        nn.init.normal_(self.embedding.weight[:, : 2 * channels], 1, 0.02)
        nn.init.zeros_(self.embedding.weight[:, 2 * channels :])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W) and level (B,)."""
        gamma, alpha, beta = self.embedding(level)[:, :, None, None].chunk(3, 1)
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        spread, center = torch.var_mean(mean, 1, keepdim=True)
        m = (mean - center) * torch.rsqrt(spread + 1e-5)
        return gamma * ((x - mean) * torch.rsqrt(variance + 1e-5) + alpha * m) + beta


class ResidualBlock(nn.Module):
    """skip(x) + conv(elu(norm(conv(elu(norm(x)))))).

    Args:
        dilation: of both 3x3 convolutions.
        shrink: whether to halve the resolution, by averaging 2 x 2 pixels after the second convolution.

    The skip is the identity where the width stays and the block neither shrinks nor, by `project`, has a convolution.
    """

    def __init__(
        self, inputs: int, outputs: int, levels: int, dilation: int = 1, shrink: bool = False, project: bool = False
    ) -> None:
        super().__init__()
        middle = inputs if shrink or project else outputs
        self.shrink = shrink
        self.norm_1 = InstanceNormPlus(inputs, levels)
        self.conv_1 = nn.Conv2d(inputs, middle, 3, padding=dilation, dilation=dilation)
        self.norm_2 = InstanceNormPlus(middle, levels)
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


class ConvUnits(nn.Module):
    """Residual convolution units: `units` times x + two of (norm, elu, conv)."""

    def __init__(self, channels: int, units: int, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(InstanceNormPlus(channels, levels) for _ in range(2 * units))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2 * units))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W) and level (B,)."""
        for i in range(0, len(self.convs), 2):
            h = self.convs[i](F.elu(self.norms[i](x, level)))
            x = x + self.convs[i + 1](F.elu(self.norms[i + 1](h, level)))
        return x


class ChainedPooling(nn.Module):
    """elu(x) plus a chain of (norm, 5x5 average, conv), each link added: background context."""

    def __init__(self, channels: int, links: int, levels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(InstanceNormPlus(channels, levels) for _ in range(links))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(links))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W) and level (B,)."""
        x = path = F.elu(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            path = conv(F.avg_pool2d(norm(path, level), 5, stride=1, padding=2))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Convolution units on each input, the inputs summed at the first one's resolution, pooling, convolution units."""

    def __init__(self, inputs: Sequence[int], outputs: int, levels: int, units: int = 1) -> None:
        super().__init__()
        fused = list(inputs) if len(inputs) > 1 else []
        self.adapt = nn.ModuleList(ConvUnits(width, 2, levels) for width in inputs)
        self.fuse_norms = nn.ModuleList(InstanceNormPlus(width, levels) for width in fused)
        self.fuse_convs = nn.ModuleList(nn.Conv2d(width, outputs, 3, padding=1) for width in fused)
        self.pool = ChainedPooling(outputs, 2, levels)
        self.out = ConvUnits(outputs, units, levels)

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
        image_channels: channels of the images, whose range is [0, 1] and whose sides are even.
        channels: width of the first stage; the others have twice that.
        levels: number of noise levels.
    """

    def __init__(self, image_channels: int = 3, channels: int = 128, levels: int = 10) -> None:
        super().__init__()
        if channels < 1 or levels < 1:
            raise ValueError(f"channels and levels must be positive, got {channels} and {levels}")
        c, w = channels, 2 * channels
        self.conv_in = nn.Conv2d(image_channels, c, 3, padding=1)
        self.stages = nn.ModuleList(
            [
                nn.ModuleList([ResidualBlock(c, c, levels), ResidualBlock(c, c, levels)]),
                nn.ModuleList([ResidualBlock(c, w, levels, shrink=True), ResidualBlock(w, w, levels)]),
                *(
                    nn.ModuleList([ResidualBlock(w, w, levels, d, project=True), ResidualBlock(w, w, levels, d)])
                    for d in (2, 4)
                ),
            ]
        )
        self.refine = nn.ModuleList(
            [
                RefineBlock([w], w, levels),
                RefineBlock([w, w], w, levels),
                RefineBlock([w, w], c, levels),
                RefineBlock([c, c], c, levels, units=3),
            ]
        )
        self.norm_out = InstanceNormPlus(c, levels)
        self.conv_out = nn.Conv2d(c, image_channels, 3, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from images x (B, C, H, W) in [0, 1] and the level (B,), int64, counted from the largest sigma.

        Raises:
            ValueError: when a side of the images is odd.
        """
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"this network takes images with even sides, got {tuple(x.shape[2:])}")
        h = self.conv_in(2 * x - 1)
        features = []
        for stage in self.stages:
            for block in stage.children():
                h = block(h, level)
            features.append(h)
        h = self.refine[0]([features[3]], level)
        for refine, feature in zip(list(self.refine)[1:], features[2::-1], strict=True):
            h = refine([feature, h], level)
        return self.conv_out(F.elu(self.norm_out(h, level)))
