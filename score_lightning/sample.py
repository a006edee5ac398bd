"""Draws images from a checkpoint: python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_lightning import cli, config
from score_lightning.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from score_lightning.generation.generator import BatchStore, Generator
    from score_lightning.models import ScoreModel
    from score_lightning.runtime.processes import Rank

TASKS = ("inpaint", "colorize", "upsample", "interpolate")

OPTIONS = {
    "ckpt": str, "n": int, "out": str, "seed": int, "batch_size": int, "weights": str, "device": str, "devices": int,
    "label": int, "task": str, "image": str, "mask": str,
}  # fmt: skip


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]
python -m score_lightning.sample ckpt=PATH task=inpaint|colorize|upsample|interpolate image=… [mask=…] [key=value …]

Writes samples.png and samples.npz (images uint8 N x H x W x C). If it is stopped, the same command goes on.
  ckpt=PATH                    the checkpoint
  n=64                         number of images
  out=DIR                      where to write [the run folder of the checkpoint]
  seed=0                       image i is a function of the seed and i
  batch_size=256               images sampled at once
  weights=ema                  ema (the averaged weights) or raw
  device=auto                  auto, cpu, cuda, cuda:1, mps …
  devices=1                    processes on this machine; or use torchrun
  label=K                      class of all images, of a model that is told labels [i modulo their number]
  task=inpaint                 paint anew the white pixels of mask=FILE, a picture of the size of image=FILE
  task=colorize                color image=FILE; what is kept is the mean of red, green and blue
  task=upsample                enlarge image=FILE, a small square, to the size of the model's images
  task=interpolate             go from one picture to another, image=[FILE,FILE], in n steps by the probability-flow ODE
                               Without n, a task draws 15 images. They are by a model that knows of no task; a sampler
                               that mixes, such as predictor_corrector, fits new parts best to what is there.

Every key of training changes the configuration inside the checkpoint, such as sampler=ddim sampler.steps=50:
{config.describe()}"""


def main(words: Sequence[str]) -> None:
    """Draws what the words say."""
    own, rest = cli.split_arguments(words, OPTIONS, required=["ckpt"])
    n, batch_size, processes = (
        own.get("n", 15 if "task" in own else 64),
        own.get("batch_size", 256),
        own.get("devices", 1),
    )
    if n < 1 or batch_size < 1 or processes < 1:
        raise UserError(f"n, batch_size and devices must be at least 1, got {n}, {batch_size} and {processes}")
    _check_task(own, n, processes)

    from score_lightning import checkpoint
    from score_lightning.evaluation.report import make_folder
    from score_lightning.experiment import build
    from score_lightning.formats.native import run_folder_of
    from score_lightning.runtime.processes import find_device, launch

    model, resolved, _ = checkpoint.open_changed(own["ckpt"], rest, own.get("weights", "ema"))
    generator = build.build_generator(resolved, batch_size=batch_size, label=own.get("label"), n=n)
    shown, pair = None, None
    if "task" in own:
        generator, shown, pair = _prepare(own, generator)
    device = find_device(own.get("device", "auto"))
    folder = make_folder(Path(own.get("out", run_folder_of(own["ckpt"]))).expanduser())
    rank, device = launch(device, processes)
    model.to(device)
    if pair is None:
        images, store = _draw(model, resolved, generator, n, own.get("seed", 0), rank, folder)
    else:
        from score_lightning.generation.tasks import interpolation

        images, store = interpolation(model, pair, n, generator.pixels, batch_size), None
    if rank.number == 0:
        _write(images, shown, folder)
        if store is not None:
            store.clear()


def _check_task(own: dict[str, Any], n: int, processes: int) -> None:
    """Refuses words that belong to another task, or to none."""
    task = own.get("task")
    if task is not None and task not in TASKS:
        raise UserError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    for key in ("image", "mask"):
        if task is None and key in own:
            raise UserError(f"{key}=… goes with task={'inpaint' if key == 'mask' else '|'.join(TASKS)}")
    if task == "interpolate":
        if processes > 1 or n < 2:
            raise UserError("task=interpolate runs in one process and draws at least 2 images")
        for key in ("mask", "label", "seed"):
            if key in own:
                raise UserError(f"task=interpolate takes no {key}: it goes from one picture to another, without labels")


def _prepare(own: dict[str, Any], generator: "Generator") -> tuple["Generator", "Tensor | None", "Tensor | None"]:
    """(generator, picture of what is known, pair of pictures to go between) of a task."""
    from score_lightning.data.images import Shape
    from score_lightning.generation.tasks import read_known, read_pair

    if len(generator.shape) < 3:
        raise UserError(f"task={own['task']} is of images; this model draws points")
    channels, size, _ = generator.shape
    if own["task"] == "interpolate":
        return generator, None, read_pair(own.get("image"), Shape(size, channels))
    known = read_known(own["task"], own.get("image"), own.get("mask"), Shape(size, channels), generator.pixels)
    return replace(generator, measurement=known.measurement), known.picture, None


def _draw(
    model: "ScoreModel",
    resolved: config.Resolved,
    generator: "Generator",
    n: int,
    seed: int,
    rank: "Rank",
    folder: Path,
) -> tuple["Tensor", "BatchStore"]:
    """uint8 (n, C, H, W) of all ranks, and where they are kept until they are written."""
    import torch

    from score_lightning.evaluation.metrics import OrderedRows
    from score_lightning.experiment.loading import image_key
    from score_lightning.generation.generator import BatchStore, check_finite

    store = BatchStore(folder, image_key(model, resolved, generator, seed, next(model.parameters()).device))
    drawn, broken = OrderedRows(torch.empty(generator.shape, dtype=generator.pixels.dtype)).to(rank.device), []
    for batch in generator(model, n, seed, rank, rank.number == 0, store):
        drawn.update(batch.images, batch.indices)
        broken += batch.indices[~batch.finite].tolist()
    try:
        check_finite([i for part in rank.gather(broken) for i in part], n)
    except UserError:
        store.clear()  # broken images are of no use
        raise
    return drawn.compute().cpu(), store


def _write(images: "Tensor", known: "Tensor | None", folder: Path) -> None:
    """Writes samples.npz and samples.png, which shows what was known first."""
    import numpy as np
    import torch

    from score_lightning.generation.pictures import save_grid, save_samples

    picture, npz = folder / "samples.png", folder / "samples.npz"
    if images.ndim == 2:
        np.savez_compressed(npz, points=images.numpy())
        print(f"Drew {len(images)} points: {save_samples(images, picture)} and {npz}")
        return
    np.savez_compressed(npz, images=images.permute(0, 2, 3, 1).numpy())
    first = images[:100]
    save_grid(first if known is None else torch.cat([known[None], first]), picture)
    content = f"the first {len(first)}" if known is None else f"what is known, and the first {len(first)}"
    print(f"Drew {len(images)} images: {picture} ({content}) and {npz} (all)")


if __name__ == "__main__":
    cli.run(main, usage)
