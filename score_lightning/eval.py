"""Evaluates a checkpoint, or pictures: python -m score_lightning.eval ckpt=PATH | images=DIR|NPZ reference=… ."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_lightning import cli, config
from score_lightning.errors import UserError

if TYPE_CHECKING:
    from score_lightning.evaluation.evaluate import Evaluator
    from score_lightning.evaluation.outputs import Entry
    from score_lightning.generate import Batch, Generator
    from score_lightning.images import ImageSet
    from score_lightning.models import ScoreModel
    from score_lightning.processes import Rank

OWN = {
    "ckpt": str, "images": str, "reference": str, "n": int, "seed": int, "seeds": list, "weights": str, "out": str,
    "device": str, "devices": int,
}  # fmt: skip


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.eval ckpt=PATH [n=N] [sampler=NAME sampler.steps=N] [key=value …]
python -m score_lightning.eval images=DIR|NPZ reference=NAME|DIR|NPZ [key=value …]

Compares images with a reference by all metrics of one feature network; writes metrics.json, report.html and pictures.
If it is stopped, the same command goes on with the images that were drawn.
  ckpt=PATH                    draw images from this checkpoint
  images=DIR|NPZ               or take these: a folder or zip of pictures, or images uint8 N x H x W x C in an npz
  reference=…                  a data set by name, a folder or zip of pictures, an npz of images, or one of statistics
                               (mu, sigma), with which only fid can be computed [the training images]
  n=N                          number of images [evaluation.n, or all that are given]
  seed=0                       image i is a function of the seed and i
  seeds=[0,1,2]                draw n images of each seed; report mean, spread and each value
  weights=ema                  ema (the averaged weights) or raw
  out=DIR                      where to write [the run folder of the checkpoint, or the current folder]
  device=auto                  auto, cpu, cuda, cuda:1, mps …
  devices=1                    processes on this machine; or use torchrun. The results are the same
A list sweeps: sampler.steps=[5,10,20,50], sampler=[ddim,ancestral], or any other key of the sampler.

Every key of training changes the configuration inside the checkpoint; evaluation.* and features.* are also there for
images=:
{config.describe()}"""


def main(words: Sequence[str]) -> None:
    """Evaluates what the words say."""
    own, rest = cli.take(words, OWN)
    if ("ckpt" in own) == ("images" in own):
        raise UserError("give either ckpt=PATH or images=DIR|NPZ (--help lists the keys)")
    if own.get("n", 1) < 1:
        raise UserError(f"n must be at least 1, got {own['n']}")
    if "ckpt" in own:
        _evaluate_checkpoint(own, rest)
    else:
        _evaluate_images(own, rest)


def split_sweep(words: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The words that are the same for all, and those of each point of the sweep over lists given to the sampler."""
    same, swept = [], []
    for word in words:
        key, value = config.parse_word(word)
        if key.split(".")[0] == "sampler" and isinstance(value, list):
            if not value:
                raise UserError(f"{key}: the list is empty")
            swept.append([f"{key}={'null' if item is None else item}" for item in value])
        else:
            same.append(word)
    return same, [list(point) for point in itertools.product(*swept)]


def _seeds(own: dict[str, Any]) -> list[int]:
    seeds = own.get("seeds", [own.get("seed", 0)])
    if "seed" in own and "seeds" in own:
        raise UserError("give either seed=N or seeds=[N,…]")
    if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must be a list of different whole numbers, got {seeds}")
    return seeds


@dataclass(frozen=True)
class Point:
    """One point of a sweep: its sampler's settings, and its images."""

    sampler: dict[str, Any]
    evaluations: int
    generator: "Generator"
    key: Callable[[int, Any], str]


def _evaluate_checkpoint(own: dict[str, Any], words: Sequence[str]) -> None:
    from score_lightning import checkpoint
    from score_lightning.build_evaluation import build_evaluator, build_features, build_reference, build_validation
    from score_lightning.evaluation.outputs import Outputs, describe_run
    from score_lightning.evaluation.report import make_folder
    from score_lightning.processes import find_device, launch

    seeds, weights = _seeds(own), own.get("weights", "ema")
    same, sweep = split_sweep(words)
    model, resolved, step = checkpoint.open_changed(own["ckpt"], same, weights)
    points = [_point(model, config.change(resolved.plain(), own["ckpt"], point)) for point in sweep]
    device = find_device(own.get("device", "auto"))
    n = own.get("n", resolved.config.evaluation.n or 1000)
    reference, split = build_reference(resolved, own.get("reference"))
    evaluator = build_evaluator(resolved, build_features(resolved, split), reference, n, device)
    validation = build_validation(resolved, model, None if "reference" in own else split)
    folder = make_folder(Path(own.get("out", checkpoint.run_folder_of(own["ckpt"]))).expanduser())

    rank, device = launch(device, own.get("devices", 1))
    model.to(device)
    evaluator.prepare(rank, rank.number == 0)
    entries = [_entry(point, model, evaluator, n, seeds, rank, folder) for point in points]
    checked = {"checkpoint": own["ckpt"], "step": step, "weights": weights}
    settings = {**checked, **describe_run(n, evaluator, rank, device, resolved.config.evaluation.batch_size)}
    settings["quantizer"] = "clamp to the range of pixels, round to the nearest of 256 levels"
    title = f"{Path(resolved.config.exp).stem}: {n:,} images against {reference.name}"
    outputs = Outputs(folder, title, evaluator, settings, entries, seeds)
    if rank.number == 0:
        outputs.draw_trajectory(model, points[0].generator)
    if validation is not None:
        loss, held_out = validation
        triples = max(min(resolved.config.validation.n, n), rank.count * len(loss.times))
        outputs.draw_levels(model, loss, held_out, triples, rank)
    if rank.number == 0:
        outputs.write()


def _point(model: "ScoreModel", resolved: config.Resolved) -> Point:
    from score_lightning import build, checkpoint

    generator = build.build_generator(resolved)
    evaluations = generator.sampler.evaluations(model.schedule)

    def key(seed: int, device: Any) -> str:
        return checkpoint.image_key(model, resolved, generator, seed, device)

    return Point(resolved.plain()["sampler"], evaluations, generator, key)


def _entry(
    point: Point, model: "ScoreModel", evaluator: "Evaluator", n: int, seeds: list[int], rank: "Rank", folder: Path
) -> "Entry":
    """The results of one sampler, for each seed; the images drawn are kept until all of their metrics are there."""
    from score_lightning.evaluation.outputs import Entry
    from score_lightning.generate import BatchStore

    device = next(model.parameters()).device
    show = rank.number == 0
    results, start = [], time.monotonic()
    for seed in seeds:
        store = BatchStore(folder, point.key(seed, device))
        batches = point.generator(model, n, seed, rank, show, store)
        results.append(evaluator(batches, rank, shown=100, progress=show))
        if show:
            store.clear()
    speed = n * len(seeds) / (time.monotonic() - start)
    return Entry(results, speed, point.sampler, point.evaluations)


def _evaluate_images(own: dict[str, Any], words: Sequence[str]) -> None:
    from score_lightning.build_evaluation import build_evaluator, build_features, build_reference, read_images
    from score_lightning.evaluation.outputs import Entry, Outputs, describe_run
    from score_lightning.evaluation.report import make_folder
    from score_lightning.processes import find_device, launch

    if "reference" not in own:
        raise UserError("images=… needs reference=NAME|DIR|NPZ to compare with")
    for key in ("seed", "seeds", "weights"):
        if key in own:
            raise UserError(f"{key}=… goes with ckpt=…: images=… are there already")
    images = read_images(own["images"])
    n = own.get("n", len(images))
    if not 1 <= n <= len(images):
        raise UserError(f"{own['images']} holds {len(images)} images; n must lie between 1 and that, got {n}")
    channels, size, width = images.shape
    if size != width:
        raise UserError(f"{own['images']} holds images of {width} x {size} pixels; expected squares")
    plain = {"exp": "images", "images": {"size": size, "channels": channels}, "trainer": {"max_steps": 1}}
    resolved = config.change(plain, "images=" + own["images"], words)
    device = find_device(own.get("device", "auto"))
    reference, split = build_reference(resolved, own["reference"])
    evaluator = build_evaluator(resolved, build_features(resolved, split), reference, n, device)
    folder = make_folder(Path(own.get("out", ".")).expanduser())

    rank, device = launch(device, own.get("devices", 1))
    evaluator.prepare(rank, rank.number == 0)
    size, start = resolved.config.evaluation.batch_size, time.monotonic()
    result = evaluator(_batches(images, n, size, rank, device), rank, shown=100)
    entry = Entry([result], n / (time.monotonic() - start))
    settings = {"images": own["images"], **describe_run(n, evaluator, rank, device, size), "quantizer": "none: uint8"}
    if rank.number == 0:
        title = f"{own['images']}: {n:,} images against {reference.name}"
        Outputs(folder, title, evaluator, settings, [entry]).write()


def _batches(images: "ImageSet", n: int, size: int, rank: "Rank", device: Any) -> "Iterator[Batch]":
    import torch
    from tqdm.auto import tqdm

    from score_lightning.generate import Batch

    mine = torch.arange(n).split(size)[rank.number :: rank.count]
    for indices in tqdm(mine, "features", unit="batch", disable=None if rank.number == 0 else True, leave=False):
        yield Batch(indices, images[indices].to(device), torch.ones(len(indices), dtype=torch.bool))


if __name__ == "__main__":
    cli.run(main, usage)
