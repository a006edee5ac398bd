"""The U-Net of DDPM (Ho et al. 2020, App. B), with the options of iDDPM, ADM, the score SDEs and diffusers."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.networks.blocks import Style
from score_lightning.networks.embedding import look_up, sinusoidal
from score_lightning.networks.ushape import Size, UShape, check_classes


class UNet(UShape):
    """DDPM's U-Net. The defaults are its CIFAR-10 configuration (35,746,307 parameters; 0.1 dropout in training).

    Args:
        image_size: height and width of the images in pixels, one number of squares.
        image_channels: channels of the images.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each next level has half the resolution.
        blocks: residual blocks per level.
        attention: resolutions, in pixels, at which blocks are followed by self-attention.
        dropout: probability inside the residual blocks.
        groups: groups of the group norms.
        learned_variance: whether to return twice the channels, the second half for variances (Nichol & Dhariwal 2021).
        classes: of labels, which are embedded and added to the time's embedding; None without labels.
        heads: of the attention.
        head_channels: channels per head, where the number of heads follows from it.
        adaptive: whether the embedding scales and shifts (Nichol & Dhariwal 2021, Sec. 3.4), rather than being added.
        by_blocks: whether resolution changes in residual blocks (ADM: Dhariwal & Nichol 2021, Sec. 3), rather than in
            strided convolutions.
        attend_last: whether on the way up only a level's last block is followed by attention (score SDEs' DDPM).
        symmetric: whether strided convolutions pad on all sides; DDPM's pad on the right and below only.
        endpoint: whether the lowest frequency of the time's embedding is 1/10,000, see `sinusoidal`.
        norm_eps: of the group norms.
        unit_range: whether images lie in [0, 1]; else in [-1, 1].
        map_scale: variance of the initial weights of 1 x 1 maps, before attention and in skips, in units of DDPM's: 0.1
            in the score SDEs' code.
        heads_first: how query, key and value lie in files of guided-diffusion: those of one head after another, or (its
            `use_new_attention_order`) all queries, all keys and all values. The network is the same.
        condition_channels: of a picture that images are conditioned on, beside `image_channels` in the input.

    Raises:
        ValueError: when the image size cannot be halved that often, or groups or heads do not divide a width.
    """

    def __init__(
        self,
        image_size: Size = 32,
        image_channels: int = 3,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (16,),
        dropout: float = 0.0,
        groups: int = 32,
        learned_variance: bool = False,
        classes: int | None = None,
        heads: int = 1,
        head_channels: int | None = None,
        adaptive: bool = False,
        by_blocks: bool = False,
        attend_last: bool = False,
        symmetric: bool = False,
        endpoint: bool = True,
        norm_eps: float = 1e-6,
        unit_range: bool = False,
        map_scale: float = 1.0,
        heads_first: bool = True,
        condition_channels: int = 0,
    ) -> None:
        check_classes(classes)
        width = 4 * channels
        style = Style(
            embedding=width,
            dropout=dropout,
            groups=groups,
            eps=norm_eps,
            adaptive=adaptive,
            project=False,
            heads=heads,
            head_channels=head_channels,
            attention_scale=map_scale,
            skip_scale=map_scale,
        )
        super().__init__(
            image_size=image_size,
            image_channels=image_channels + condition_channels,
            outputs=image_channels * (1 + learned_variance),
            channels=channels,
            multipliers=multipliers,
            blocks=blocks,
            attention=attention,
            style=style,
            features=channels,
            attend_last=attend_last,
            by_blocks=by_blocks,
            symmetric=symmetric,
            unit_range=unit_range,
        )
        self.classes, self.endpoint, self.heads_first = classes, endpoint, heads_first
        self.condition_channels = condition_channels
        if classes is not None:
            self.label = nn.Embedding(classes + 1, width)  # the first row is that of no label

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W) from images x (B, C, H, W), times t (B,) and labels int64 (B,), -1 for none.

        Raises:
            ValueError: when the images are not of the size that the network was built for.
        """
        embedding = self.time_1(sinusoidal(t, self.channels, self.endpoint).to(self.time_1.weight.dtype))
        embedding = self.time_2(F.silu(embedding))
        if self.classes is not None:
            embedding = embedding + look_up(self.label, labels, t)
        return self.body(x, F.silu(embedding))
