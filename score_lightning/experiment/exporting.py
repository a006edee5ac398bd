"""From a checkpoint to files for other programs."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from score_lightning.config import Parts
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.card import write_card
from score_lightning.experiment.exported import Exported
from score_lightning.experiment.loading import open_checkpoint
from score_lightning.formats import diffusers, names, scheduler, unet2d
from score_lightning.formats.licenses import UNKNOWN, read_license
from score_lightning.formats.native import write_exported
from score_lightning.networks import UNet
from score_lightning.runtime.files import atomic_path, output_folder


def export(path: str, name: str, out: Path, license: str | None = None, parts: Parts | None = None) -> list[str]:
    """Writes a checkpoint's averaged weights and their model card to a folder, whole or not at all.

    Args:
        path: of the checkpoint.
        name: of the format, safetensors or diffusers.
        out: the folder, which must be new or empty.
        license: of the weights, as `read_license` takes it.
        parts: of the user's own.

    Returns:
        What the card lacks, one line each.

    Raises:
        UserError: when the checkpoint cannot be read or written in that format, or the folder cannot be written.
    """
    terms = read_license(license or UNKNOWN)
    try:
        with output_folder(out.parent), atomic_path(out) as partial:  # an empty folder gives way, too
            opened = open_checkpoint(path, [], parts=parts)
            experiment = opened.experiment
            if name == "safetensors":
                known = {"data": opened.data, "run": opened.run, "imported": opened.imported}
                weights = experiment.model.state_dict()
                write_exported(partial, weights, experiment.resolved.plain(), opened.step, known)
            else:
                _write_pipeline(partial, path, experiment)
            return write_card(partial, Exported(path, opened, name, out.name, terms))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{out} cannot be written: {error}") from error


def _write_pipeline(folder: Path, path: str, experiment: Experiment) -> None:
    """The folder of a DDPMPipeline.

    Raises:
        UserError: when diffusers has no such network, noise levels, prediction or range of pixels.
    """
    model, c = experiment.model, experiment.config
    if not isinstance(model.net, UNet) or list(c.images.range) != [-1, 1] or c.conditioning != "time":
        raise UserError(
            f"{path}: only a unet that is conditioned on the time and takes pixels in [-1, 1] can be written for "
            f"diffusers; this is a {c.net.get('name')} conditioned on {c.conditioning}, with pixels in "
            f"{list(c.images.range)}"
        )
    if c.condition:
        raise UserError(
            f"{path}: diffusers' DDPMPipeline gives its network no picture (condition={c.condition['name']})"
        )
    ancestral = c.sampler if c.sampler.get("name") == "ancestral" else {}
    variance = "learned" if c.net.get("learned_variance") else ancestral.get("variance", "large")
    contents = {
        "model_index.json": {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
        "unet/config.json": unet2d.unet_config(model.net),
        "scheduler/scheduler_config.json": scheduler.scheduler_config(
            model, variance, bool(ancestral.get("clip", True)), path
        ),
    }
    for file, settings in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    state, sources = model.net.state_dict(), names.diffusers(model.net)
    weights = {source.name: source.give(state[ours]).contiguous() for ours, source in sources.items()}
    save_file(weights, folder / "unet" / diffusers.WEIGHTS[0], metadata={"format": "pt"})
