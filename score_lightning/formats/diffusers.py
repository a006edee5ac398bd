"""Folders of diffusers: where their networks, weights and schedulers lie."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_lightning.errors import UserError
from score_lightning.formats.unet2d import DEFAULTS

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
KINDS = re.compile(r"diffusion_pytorch_model(\.\w+)?\.(bin|safetensors)(\.index(\.\w+)?\.json)?")
"""The names of files of weights: in full or a variant of them (.fp16), or their index where there are several."""


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
