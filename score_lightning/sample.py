"""Draws images from a checkpoint: python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]."""

from collections.abc import Sequence
from typing import Any

from score_lightning import cli, config
from score_lightning.errors import UserError

TASKS = ("inpaint", "colorize", "upsample", "interpolate")

OPTIONS = {
    "ckpt": str, "n": int, "out": str, "seed": int, "batch_size": int, "weights": str, "device": str, "devices": int,
    "label": str, "task": str, "image": str, "mask": str,
}  # fmt: skip


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]
python -m score_lightning.sample ckpt=PATH task=inpaint|colorize|upsample|interpolate image=… [mask=…] [key=value …]

Writes samples.png and samples.npz (images uint8 N x H x W x C). If it is interrupted, the same command continues.
  ckpt=PATH                    the checkpoint
  n=64                         number of images
  out=DIR                      where to write [the run folder of the checkpoint]
  seed=0                       image i is a function of the seed and i
  batch_size=256               images sampled at once
  weights=ema                  ema (the averaged weights) or raw
  device=auto                  auto, cpu, cuda, cuda:1, mps …
  devices=1                    processes on this machine; or use torchrun
  label=NAME                   class of all images, or its number, of a model conditioned on labels
                               [image i is of class i modulo their number]
  task=inpaint                 inpaint the white pixels of mask=FILE, a picture of the size of image=FILE
  task=colorize                color image=FILE; what is kept is the mean of red, green and blue
  task=upsample                enlarge image=FILE, a small square, to the size of the model's images
  task=interpolate             go from one picture to another, image=[FILE,FILE], in n steps by the probability-flow ODE
                               Without n, a task draws 15 images. The model was not trained for tasks; a sampler with a
                               corrector, such as predictor_corrector, fits new parts best to the rest.

Every key of training changes the configuration inside the checkpoint, such as sampler=ddim sampler.steps=50:
{config.describe()}"""


def main(arguments: Sequence[str]) -> None:
    """Draws what key=value arguments ask for."""
    options, overrides = cli.split_arguments(arguments, OPTIONS, required=["ckpt"])
    n = options.get("n", 15 if "task" in options else 64)
    sizes = (n, options.get("batch_size", 256), options.get("devices", 1))
    if min(sizes) < 1:
        raise UserError("n, batch_size and devices must be at least 1, got {}, {} and {}".format(*sizes))
    _check_task(options, n, sizes[2])

    from score_lightning.experiment.sample import sample

    sample(options, overrides, n)


def _check_task(options: dict[str, Any], n: int, processes: int) -> None:
    """Refuses options of another task, or of none."""
    task = options.get("task")
    if task is not None and task not in TASKS:
        raise UserError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    for key in ("image", "mask"):
        if task is None and key in options:
            raise UserError(f"{key}=… goes with task={'inpaint' if key == 'mask' else '|'.join(TASKS)}")
    if task == "interpolate":
        if processes > 1 or n < 2:
            raise UserError("task=interpolate runs in one process and draws at least 2 images")
        for key in ("mask", "label", "seed"):
            if key in options:
                raise UserError(f"task=interpolate takes no {key}: it goes from one picture to another, without labels")


if __name__ == "__main__":
    cli.run(main, usage)
