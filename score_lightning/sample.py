"""Draws images from a checkpoint: python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]."""

from collections.abc import Sequence
from typing import Any

from score_lightning import cli, config
from score_lightning.errors import UserError

RESTORE = ("inpaint", "colorize", "upsample", "deblur")
TASKS = (*RESTORE, "edit", "interpolate")
METHODS = ("projection", "dps", "pigdm", "mmps")

OPTIONS = {
    "ckpt": str, "n": int, "out": str, "seed": int, "batch_size": int, "weights": str, "device": str, "devices": int,
    "label": str, "task": str, "image": str, "mask": str, "noise": float, "method": str, "blur": float, "motion": str,
    "strength": float,
}  # fmt: skip
OF_TASKS = {
    "image": TASKS, "mask": ("inpaint",), "noise": RESTORE, "method": RESTORE, "blur": ("deblur",),
    "motion": ("deblur",), "strength": ("edit",),
}  # fmt: skip
"""Options that go with some tasks only."""


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]
python -m score_lightning.sample ckpt=PATH task=inpaint|colorize|upsample|deblur|edit|interpolate image=… [key=value …]
python -m score_lightning.sample ckpt=PATH image=FILE|DIR|NPZ [n=1] [key=value …]      of a model with a condition

Writes samples.png and samples.npz (images N x H x W x C, uint8 or as images.depth says).
If it is interrupted, the same command continues.
  ckpt=PATH                    the checkpoint
  n=64                         number of images
  out=DIR                      where to write [the run folder of the checkpoint; the current one for exported weights]
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
  task=deblur                  sharpen image=FILE, which was blurred by a Gaussian of blur=STD pixels, or by a motion of
                               motion=LENGTH,ANGLE pixels and degrees; its borders as in a mirror
  noise=0                      standard deviation of the noise in the picture of these four, in gray levels of 255
  method=NAME                  projection (what is known is kept), or for noisy pictures mmps, pigdm or dps
                               [projection without noise; mmps with noise, and for deblur]
  task=edit                    perturb image=FILE and sample from there; strength=0.5, in (0, 1], is the share of the
                               sampler's times: the more, the less is left of the picture
  task=interpolate             go from one picture to another, image=[FILE,FILE], in n steps by the probability-flow ODE
                               Without n, a task draws 15 images. The model was not trained for tasks; a sampler with a
                               corrector, such as predictor_corrector, fits new parts best to the rest.
  image=FILE|DIR|NPZ           what a model with a condition is given: a picture, a folder or zip of pictures, or arrays
                               `images`; n samples of each [15 of one picture, 1 of several]. Image i is of picture i
                               modulo their number
  mask=FILE|DIR|NPZ            for condition=inpaint: one for all pictures, or one for each, white where to paint
  task=upsample|colorize       with image=…, of a model with that condition: samples keep the picture exactly

Every key of training changes the configuration inside the checkpoint, such as sampler=ddim sampler.steps=50:
{config.describe()}"""


def main(arguments: Sequence[str], parts: config.Parts | None = None) -> None:
    """Draws what key=value arguments ask for, with parts of the user's own."""
    options, overrides = cli.split_arguments(arguments, OPTIONS, required=["ckpt"])
    n = options.get("n", 15 if "task" in options or "image" in options else 64)
    sizes = (n, options.get("batch_size", 256), options.get("devices", 1))
    if min(sizes) < 1:
        raise UserError("n, batch_size and devices must be at least 1, got {}, {} and {}".format(*sizes))
    _check_task(options, n, sizes[2])

    from score_lightning.experiment.sample import sample

    sample(options, overrides, n, parts)


def _check_task(options: dict[str, Any], n: int, processes: int) -> None:
    """Refuses options of another task, or of none."""
    task = options.get("task")
    if task is not None and task not in TASKS:
        raise UserError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    for key, tasks in OF_TASKS.items():
        if task is None and key in ("image", "mask"):
            continue  # of a model with a condition
        if key in options and task not in tasks:
            takes = f"{key}=… goes with task={'|'.join(tasks)}"
            raise UserError(takes if task is None else f"task={task} takes no {key}: {takes}")
    if task == "interpolate":
        if processes > 1 or n < 2:
            raise UserError("task=interpolate runs in one process and draws at least 2 images")
        for key in ("label", "seed"):
            if key in options:
                raise UserError(f"task=interpolate takes no {key}: it goes from one picture to another, without labels")
    if task == "deblur" and ("blur" in options) == ("motion" in options):
        raise UserError("task=deblur needs either blur=STD in pixels, or motion=LENGTH,ANGLE in pixels and degrees")
    if not options.get("blur", 1.0) > 0:
        raise UserError(f"blur=STD must be a positive number of pixels, got {options['blur']}")
    if not 0 < options.get("strength", 1.0) <= 1:
        raise UserError(f"strength must lie above 0 and at most at 1, got {options['strength']}")
    _check_method(task, options.get("method"), options.get("noise", 0.0))


def _check_method(task: str | None, method: str | None, noise: float) -> None:
    """Refuses a method that the noise, or the task, does not allow."""
    if not 0 <= noise <= 255:
        raise UserError(f"noise must lie between 0 and 255 gray levels, got {noise}")
    if method is not None and method not in METHODS:
        raise UserError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "projection" and task == "deblur":
        raise UserError("method=projection needs a part of the picture that is known: take method=mmps for task=deblur")
    if method == "projection" and noise > 0:
        raise UserError(
            "method=projection keeps the picture's noise: take method=mmps, pigdm or dps, or leave out noise"
        )
    if method == "dps" and noise == 0:
        raise UserError("method=dps divides by the noise: give noise=S in gray levels, or take method=mmps or pigdm")


if __name__ == "__main__":
    cli.run(main, usage)
