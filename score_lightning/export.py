"""Writes a checkpoint for other programs: python -m score_lightning.export ckpt=FILE format=safetensors out=DIR."""

import json
from collections.abc import Sequence
from pathlib import Path

from score_lightning import cli
from score_lightning.errors import UserError

OPTIONS = {"ckpt": str, "format": str, "out": str}
FORMATS = ("safetensors", "diffusers")


def usage() -> str:
    """The text of --help."""
    return """python -m score_lightning.export ckpt=FILE format=safetensors|diffusers out=DIR

Writes a checkpoint's averaged weights to a new folder.
  format=safetensors   model.safetensors and config.json; eval, sample and train init= take the folder as a checkpoint
  format=diffusers     a pipeline: diffusers.DDPMPipeline.from_pretrained(DIR)"""


def main(words: Sequence[str]) -> None:
    """Exports what the words say."""
    own, rest = cli.split_arguments(words, OPTIONS, required=("ckpt", "format", "out"))
    name, out = own["format"], Path(own["out"]).expanduser()
    if rest:
        raise UserError(f"export takes {', '.join(f'{key}=…' for key in OPTIONS)}; got {rest[0]!r}")
    if name not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out} exists and is no empty folder: give another one")

    from safetensors import SafetensorError

    from score_lightning import checkpoint
    from score_lightning.formats.native import write_exported
    from score_lightning.runtime.files import atomic_path

    if not out.name:
        raise UserError(f"out={own['out']} must be a new folder")
    try:
        with atomic_path(out) as partial:  # an empty folder gives way, too
            if name == "safetensors":
                model, resolved, step = checkpoint.open_changed(own["ckpt"], [])
                write_exported(partial, model.state_dict(), resolved.plain(), step)
            else:
                _to_diffusers(partial, own["ckpt"])
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} cannot be written: {error}") from error
    print(f"Exported {own['ckpt']} in format={name}: {out}")


def _to_diffusers(folder: Path, path: str) -> None:
    """A DDPMPipeline's folder.

    Raises:
        UserError: when the network, its noise levels, its prediction or its pixels are none of diffusers'.
    """
    from safetensors.torch import save_file

    from score_lightning import checkpoint
    from score_lightning.formats import diffusers, names
    from score_lightning.networks import UNet

    model, resolved, _ = checkpoint.open_changed(path, [])
    c = resolved.config
    if not isinstance(model.net, UNet) or list(c.images.range) != [-1, 1] or c.conditioning != "time":
        raise UserError(
            f"{path}: only a unet that is told the time, of pixels in [-1, 1], can be written for diffusers; this is a "
            f"{c.net.get('name')} told {c.conditioning}, of pixels in {list(c.images.range)}"
        )
    ancestral = c.sampler if c.sampler.get("name") == "ancestral" else {}
    variance = "learned" if c.net.get("learned_variance") else ancestral.get("variance", "large")
    parts = {
        "model_index.json": {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
        "unet/config.json": diffusers.unet_config(model.net),
        "scheduler/scheduler_config.json": diffusers.scheduler_config(
            model, variance, bool(ancestral.get("clip", True)), path
        ),
    }
    for name, contents in parts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(contents, indent=2) + "\n")
    state = model.net.state_dict()
    weights = {source.name: source.give(state[own]).contiguous() for own, source in names.diffusers(model.net).items()}
    save_file(weights, folder / "unet" / diffusers.WEIGHTS[0], metadata={"format": "pt"})


if __name__ == "__main__":
    cli.run(main, usage)
