"""The settings of a UNet2DModel of diffusers, read and written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_lightning.errors import UserError
from score_lightning.networks import UNet
from score_lightning.networks.blocks import Attention

# what a UNet2DModel can be set to and ours cannot
FIXED: dict[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DModel",),
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"),
    "mid_block_scale_factor": (1, 1.0),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "downsample_padding": (0, 1),
    "freq_shift": (0, 1),
}

# the settings of UNet2DModel where its config.json is silent
DEFAULTS: dict[str, Any] = {
    "_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "center_input_sample": False,
    "time_embedding_type": "positional", "time_embedding_dim": None, "freq_shift": 0, "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896], "layers_per_block": 2, "mid_block_scale_factor": 1,
    "downsample_padding": 1, "downsample_type": "conv", "upsample_type": "conv", "act_fn": "silu",
    "attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": None, "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default", "add_attention": True, "class_embed_type": None, "num_class_embeds": None,
}  # fmt: skip

PLAIN = {"conv": ("DownBlock2D", "UpBlock2D"), "resnet": ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")}
"""How resolution changes -> the types of blocks without attention."""


def net_settings(unet: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The keywords of our UNet for the settings of a UNet2DModel; dropout only where they name it.

    Raises:
        UserError: naming the setting that our UNet does not have, or that makes no sense.
    """
    try:
        return _net_settings(unet, place)
    except (TypeError, ArithmeticError, LookupError, AttributeError) as error:
        raise UserError(f"{place}: config.json makes no sense: {error}") from error


def _net_settings(unet: Mapping[str, Any], place: Path) -> dict[str, Any]:
    for key, accepted in FIXED.items():
        if unet[key] not in accepted:
            raise UserError(
                f"{place}: {key} is {unet[key]!r}; only networks with {' or '.join(map(repr, accepted))} can be read"
            )
    size, widths = unet.get("sample_size"), unet["block_out_channels"]
    size = list(size) if isinstance(size, list | tuple) else [size, size]
    if [type(side) for side in size] != [int, int] or not widths or any(width % widths[0] for width in widths):
        raise UserError(
            f"{place}: needs a sample_size and widths that are multiples of the first, got {size}, {widths}"
        )
    if unet["out_channels"] not in (unet["in_channels"], 2 * unet["in_channels"]):
        raise UserError(f"{place}: out_channels must be in_channels or twice that, got {unet['out_channels']}")
    adaptive = unet["resnet_time_scale_shift"] == "scale_shift"
    if unet["attn_norm_num_groups"] not in ({unet["norm_num_groups"]} if adaptive else {None, unet["norm_num_groups"]}):
        raise UserError(f"{place}: attn_norm_num_groups must be that of the other norms, {unet['norm_num_groups']}")
    return {
        "image_size": size[0] if size[0] == size[1] else size,
        "image_channels": unet["in_channels"],
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "blocks": unet["layers_per_block"],
        "attention": _attention(unet, min(size), place),
        **({"dropout": unet["dropout"]} if "dropout" in unet else {}),
        "groups": unet["norm_num_groups"],
        "learned_variance": unet["out_channels"] == 2 * unet["in_channels"],
        "classes": unet["num_class_embeds"],
        "heads": 1,
        "head_channels": unet["attention_head_dim"],
        "by_blocks": unet["downsample_type"] == "resnet",
        "attend_last": False,
        "unit_range": False,
        "adaptive": adaptive,
        "symmetric": unet["downsample_padding"] == 1,
        "endpoint": unet["freq_shift"] == 1,
        "norm_eps": unet["norm_eps"],
    }


def _attention(unet: Mapping[str, Any], size: int, place: Path) -> list[int]:
    """The resolutions with attention, from the types of blocks."""
    if unet["upsample_type"] != unet["downsample_type"]:
        raise UserError(f"{place}: upsample_type must be downsample_type, {unet['downsample_type']}")
    down, up = unet["down_block_types"], list(reversed(unet["up_block_types"]))
    down_plain, up_plain = PLAIN[unet["downsample_type"]]
    known = {down_plain: False, "AttnDownBlock2D": True, up_plain: False, "AttnUpBlock2D": True}
    unknown = sorted({*down, *up} - known.keys())
    if unknown:
        raise UserError(f"{place}: blocks {', '.join(unknown)} are not among {', '.join(known)}")
    attends = [known[block] for block in down]
    if attends != [known[block] for block in up] or len(attends) != len(unet["block_out_channels"]):
        raise UserError(f"{place}: the way up must have attention where the way down has, got {down} and {up}")
    return [size // 2**i for i, attend in enumerate(attends) if attend]


def unet_config(net: UNet) -> dict[str, Any]:
    """The config.json of a UNet2DModel for one of our networks.

    Raises:
        UserError: for a network that a UNet2DModel cannot be.
    """
    style = net.style
    if net.attend_last or style.rescale or net.unit_range:
        raise UserError("only networks in DDPM's and iDDPM's manner can be written for diffusers")
    head_channels = {
        attention.norm.num_channels // attention.heads
        for attention in net.modules()
        if isinstance(attention, Attention)
    }
    if len(head_channels) > 1 and style.heads != 1:
        raise UserError("diffusers counts channels per head: train with net.head_channels=… rather than net.heads")
    resampling = "resnet" if net.by_blocks else "conv"
    down_plain, up_plain = PLAIN[resampling]
    return {
        **DEFAULTS,
        "sample_size": net.image_size,
        "in_channels": net.conv_in.in_channels,
        "out_channels": net.conv_out.out_channels,
        "block_out_channels": [net.channels * m for m in net.multipliers],
        "layers_per_block": net.blocks,
        "down_block_types": ["AttnDownBlock2D" if attend else down_plain for attend in net.attend],
        "up_block_types": ["AttnUpBlock2D" if attend else up_plain for attend in reversed(net.attend)],
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": style.dropout,
        "norm_num_groups": style.groups,
        "attn_norm_num_groups": style.groups if style.adaptive else None,
        "norm_eps": style.eps,
        "attention_head_dim": style.head_channels if style.heads == 1 else head_channels.pop(),
        "resnet_time_scale_shift": "scale_shift" if style.adaptive else "default",
        "downsample_padding": int(net.symmetric),
        "freq_shift": int(net.endpoint),
        "flip_sin_to_cos": False,
        "num_class_embeds": net.classes,
    }
