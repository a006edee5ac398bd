"""Evaluates a checkpoint, or pictures: python -m score_lightning.eval ckpt=PATH | images=DIR|NPZ reference=… ."""

from collections.abc import Sequence
from typing import Any

from score_lightning import cli, config
from score_lightning.errors import UserError

OPTIONS = {
    "ckpt": str, "images": str, "reference": str, "n": int, "seed": int, "seeds": list, "weights": str, "out": str,
    "device": str, "devices": int, "likelihood": int,
}  # fmt: skip


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.eval ckpt=PATH [n=N] [sampler=NAME sampler.steps=N] [key=value …]
python -m score_lightning.eval images=DIR|NPZ reference=NAME|DIR|NPZ [key=value …]

Compares images with a reference by all metrics of one feature network; writes metrics.json, report.html and pictures.
If it is interrupted, the same command continues with the images that were drawn.
  ckpt=PATH                    draw images from this checkpoint
  images=DIR|FILE              or take these: a folder or zip of pictures, or images N x H x W x C in a .npz,
                               .npy or .pt file
  reference=…                  a data set by name, a folder, zip or file like those, or a .npz or .pt file of statistics
                               (mu, sigma), with which only fid can be computed [the training images]
  n=N                          number of images; of those given the first, by name [evaluation.n, or all]
  seed=0                       image i is a function of the seed and i
  seeds=[0,1,2]                draw n images of each seed; report mean, spread and each value
  likelihood=N                 also bits per dimension of N held-out images, by the probability-flow ODE and, where
                               levels are discrete, DDPM's bound; N is 2 or more
  weights=ema                  ema (the averaged weights) or raw
  out=DIR                      where to write [the run folder of the checkpoint, else the current folder]
  device=auto                  auto, cpu, cuda, cuda:1, mps …
  devices=1                    processes on this machine; or use torchrun. The results are the same, and on a CPU
                               the same to the bit with equal numbers of threads (OMP_NUM_THREADS=1)
A list sweeps: sampler.steps=[5,10,20,50], sampler=[ddim,ancestral], or any other key of the sampler.

Every key of training changes the configuration inside the checkpoint, and those without effect are named. For images=
there are evaluation.*, features.* and images.background:
{config.describe()}"""


def main(arguments: Sequence[str], parts: config.Parts | None = None) -> None:
    """Evaluates what key=value arguments ask for, with parts of the user's own."""
    options, overrides = cli.split_arguments(arguments, OPTIONS)
    _check(options)
    seeds = _seeds(options)
    same, sweep = split_sweep(overrides) if "ckpt" in options else (list(overrides), [])

    from score_lightning.experiment.evaluate import evaluate_checkpoint, evaluate_images

    if "ckpt" in options:
        evaluate_checkpoint(options, same, sweep, seeds, parts)
    else:
        evaluate_images(options, same, parts)


def _check(options: dict[str, Any]) -> None:
    """Refuses options that make no sense, or not together."""
    if ("ckpt" in options) == ("images" in options):
        raise UserError("give either ckpt=PATH or images=DIR|NPZ (--help lists the keys)")
    for key in ("n", "devices"):
        if options.get(key, 1) < 1:
            raise UserError(f"{key} must be at least 1, got {options[key]}")
    if "images" in options and "reference" not in options:
        raise UserError("images=… needs reference=NAME|DIR|NPZ to compare with")
    for key in ("seed", "seeds", "weights", "likelihood"):
        if "images" in options and key in options:
            raise UserError(f"{key}=… goes with ckpt=…: images=… are there already")


def split_sweep(overrides: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(overrides that all points share, those of each point) of the sweep over lists given to the sampler."""
    return config.split_sweep(overrides, lambda key, _: key.split(".")[0] == "sampler")


def _seeds(options: dict[str, Any]) -> list[int]:
    seeds = options.get("seeds", [options.get("seed", 0)])
    if "seed" in options and "seeds" in options:
        raise UserError("give either seed=N or seeds=[N,…]")
    if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must be a list of different whole numbers, got {seeds}")
    return seeds


if __name__ == "__main__":
    cli.run(main, usage)
