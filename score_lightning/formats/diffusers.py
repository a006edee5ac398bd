"""Folders of diffusers, and the settings of a UNet2DModel, read and written."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_lightning.errors import UserError
from score_lightning.networks import UNet
from score_lightning.networks.blocks import Attention

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
KINDS = re.compile(r"diffusion_pytorch_model(\.\w+)?\.(bin|safetensors)(\.index(\.\w+)?\.json)?")
"""The names of files of weights: in full or a variant of them (.fp16), or their index where there are several."""

# what a UNet2DModel can be set to and ours cannot
FIXED: dict[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DModel",),
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
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


@dataclass(frozen=True)
class Folder:
    """A folder of diffusers.

    Args:
        weights: the file of the network's weights, or the index of several.
        average: that of their average, where there is one beside them.
        unet: the contents of its config.json, completed by the defaults.
        scheduler: those of scheduler_config.json, where there is one.
    """

    weights: Path
    average: Path | None
    unet: dict[str, Any]
    scheduler: dict[str, Any] | None


def open_folder(path: Path) -> Folder:
    """A pipeline's folder, with `unet/` and perhaps `scheduler/`, or that of the network alone, or its file of weights.

    Its training example saves the average of the weights in `unet_ema/`, which is taken where there is no `unet/`.

    Raises:
        UserError: when it is no such folder, a network of it needs others, or a file in it cannot be read.
    """
    given = [path] if path.is_file() else []
    path = path.parent if given else path
    above = path.resolve().parent
    _check_alone(above if (above / "model_index.json").is_file() else path)
    networks = [path / name for name in ("unet", "", "unet_ema") if (path / name / "config.json").is_file()]
    if not networks:
        raise UserError(
            f"{path} is no folder of diffusers: it has neither unet/config.json nor config.json, but {_held(path)}"
        )
    unet, average = networks[0], path / "unet_ema"
    weights = given or _demand_weights(unet)
    averages = _demand_weights(average) if average.is_dir() and average != unet and not given else []
    schedulers = [path / "scheduler" / "scheduler_config.json", path / "scheduler_config.json"]
    scheduler = next((_read(file) for file in schedulers if file.is_file()), None)
    settings = {**DEFAULTS, **_read(unet / "config.json")}
    return Folder(weights[0], averages[0] if averages else None, settings, scheduler)


def _check_alone(folder: Path) -> None:
    """Refuses a pipeline whose network does not make images by itself, but latents, say, or images of a text.

    Raises:
        UserError: naming what else the pipeline has.
    """
    index = folder / "model_index.json"
    pipeline = _read(index) if index.is_file() else {}
    parts = {name for name, kind in pipeline.items() if isinstance(kind, list) and any(kind)}
    parts |= {name for name in ("vae", "vqvae", "text_encoder") if (folder / name).is_dir()}
    others = sorted(parts - {"unet", "scheduler"})
    if others:
        raise UserError(
            f"{folder} holds a pipeline ({pipeline.get('_class_name', 'without model_index.json')}) with "
            f"{', '.join(others)}: only a UNet2DModel that makes images by itself, as in a DDPMPipeline, can be read"
        )


def find_weights(folder: Path) -> list[Path]:
    """The files of weights, or their indices, in a network's folder, the one to read first.

    Full precision comes before half, the usual name before a variant, safetensors before .bin, one file before several.
    """

    def order(found: re.Match[str]) -> tuple[bool, str, bool, bool]:
        variant = found[1] or found[4] or ""
        return variant in (".fp16", ".bf16"), variant, found[2] == "bin", bool(found[3])

    names = filter(None, (KINDS.fullmatch(file.name) for file in folder.iterdir()))
    return [folder / found[0] for found in sorted(names, key=order)]


def _demand_weights(folder: Path) -> list[Path]:
    weights = find_weights(folder)
    if not weights:
        raise UserError(f"{folder} has no weights: expected {' or '.join(WEIGHTS)}, but it has {_held(folder)}")
    return weights


def _held(folder: Path) -> str:
    """The names of some files in a folder."""
    return ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"


def is_bare(path: Path) -> bool:
    """Whether a file of weights has no config.json beside it."""
    return path.is_file() and not any((path.parent / name).is_file() for name in ("config.json", "unet/config.json"))


def _read(path: Path) -> dict[str, Any]:
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(contents, dict):
        raise UserError(f"{path} must hold keys and values")
    return contents


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
        "attend_last": False,
        "unit_range": False,
        "adaptive": adaptive,
        "symmetric": unet["downsample_padding"] == 1,
        "endpoint": unet["freq_shift"] == 1,
        "norm_eps": unet["norm_eps"],
    }


def _attention(unet: Mapping[str, Any], size: int, place: Path) -> list[int]:
    """The resolutions with attention, from the types of blocks."""
    down, up = unet["down_block_types"], list(reversed(unet["up_block_types"]))
    known = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
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
    kinds = ["Attn" * attend for attend in net.attend]
    return {
        **DEFAULTS,
        "sample_size": net.image_size,
        "in_channels": net.conv_in.in_channels,
        "out_channels": net.conv_out.out_channels,
        "block_out_channels": [net.channels * m for m in net.multipliers],
        "layers_per_block": net.blocks,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
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
