"""Evaluates a checkpoint, or pictures: python -m score_lightning.eval ckpt=PATH | images=DIR|NPZ reference=… ."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_lightning import cli, config
from score_lightning.errors import UserError

if TYPE_CHECKING:
    from score_lightning.evaluation.evaluator import Evaluator
    from score_lightning.evaluation.outputs import Entry
    from score_lightning.generation.generator import BatchStore
    from score_lightning.models import ScoreModel
    from score_lightning.runtime.processes import Rank

OPTIONS = {
    "ckpt": str, "images": str, "reference": str, "n": int, "seed": int, "seeds": list, "weights": str, "out": str,
    "device": str, "devices": int, "likelihood": int,
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
  n=N                          number of images; of those given the first, by name [evaluation.n, or all]
  seed=0                       image i is a function of the seed and i
  seeds=[0,1,2]                draw n images of each seed; report mean, spread and each value
  likelihood=N                 also bits per dimension of N held-out images, by the probability-flow ODE and, where
                               levels are discrete, DDPM's bound; N is 2 or more
  weights=ema                  ema (the averaged weights) or raw
  out=DIR                      where to write [the run folder of the checkpoint, or the current folder]
  device=auto                  auto, cpu, cuda, cuda:1, mps …
  devices=1                    processes on this machine; or use torchrun. The results are the same, and on a CPU
                               the same to the bit with as many threads in each (OMP_NUM_THREADS=1)
A list sweeps: sampler.steps=[5,10,20,50], sampler=[ddim,ancestral], or any other key of the sampler.

Every key of training changes the configuration inside the checkpoint; evaluation.* and features.* are also there for
images=:
{config.describe()}"""


def main(words: Sequence[str]) -> None:
    """Evaluates what the words say."""
    own, rest = cli.split_arguments(words, OPTIONS)
    if ("ckpt" in own) == ("images" in own):
        raise UserError("give either ckpt=PATH or images=DIR|NPZ (--help lists the keys)")
    if own.get("n", 1) < 1:
        raise UserError(f"n must be at least 1, got {own['n']}")
    if own.get("devices", 1) < 1:
        raise UserError(f"devices must be at least 1, got {own['devices']}")
    if "ckpt" in own:
        _evaluate_checkpoint(own, rest)
    else:
        _evaluate_images(own, rest)


def split_sweep(words: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """(overrides that all points share, those of each point) of the sweep over lists given to the sampler."""
    return config.split_sweep(words, lambda key, _: key.split(".")[0] == "sampler")


def _seeds(own: dict[str, Any]) -> list[int]:
    seeds = own.get("seeds", [own.get("seed", 0)])
    if "seed" in own and "seeds" in own:
        raise UserError("give either seed=N or seeds=[N,…]")
    if not seeds or not all(type(seed) is int for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must be a list of different whole numbers, got {seeds}")
    return seeds


def _evaluate_checkpoint(own: dict[str, Any], words: Sequence[str]) -> None:
    from score_lightning import checkpoint
    from score_lightning.evaluation.model_losses import level_losses, mean_bits
    from score_lightning.evaluation.outputs import Outputs, describe_run
    from score_lightning.evaluation.report import make_folder
    from score_lightning.experiment.build_evaluation import (
        build_bound_variance,
        build_evaluator,
        build_features,
        build_reference,
        build_validation,
    )
    from score_lightning.formats.native import run_folder_of
    from score_lightning.runtime.files import sha256_of_state
    from score_lightning.runtime.processes import find_device, launch

    seeds, weights = _seeds(own), own.get("weights", "ema")
    same, sweep = split_sweep(words)
    model, resolved, step = checkpoint.open_changed(own["ckpt"], same, weights)
    if resolved.config.points:
        raise UserError("this model draws points, which have no metrics of images: look at them with sample ckpt=PATH")
    scalars = [word for word in same if word.startswith("sampler.")]  # which a list of samplers exchanges, too
    n, size = own.get("n", resolved.config.evaluation.n or 1000), resolved.config.evaluation.batch_size
    points = [_Point(model, config.change(resolved.plain(), own["ckpt"], [*scalars, *point]), n) for point in sweep]
    device = find_device(own.get("device", "auto"))
    reference = build_reference(resolved, own.get("reference"))
    evaluator = build_evaluator(resolved, build_features(resolved, reference), reference, n)
    held_out = reference.held_out
    if "likelihood" in own and (held_out is None or not 2 <= own["likelihood"] <= len(held_out)):
        raise UserError(
            "likelihood=N needs held-out images: leave out reference=…, or name a data set"
            if held_out is None
            else f"likelihood must lie between 2 and the {len(held_out)} held-out images, got {own['likelihood']}"
        )
    loss = None
    if "reference" not in own and held_out is not None:  # the images that training validates on
        try:
            loss = build_validation(resolved, model)
        except UserError:  # an objective of discrete levels, of a model that was made continuous
            if not resolved.config.continuous:
                raise
    folder = make_folder(Path(own.get("out", run_folder_of(own["ckpt"]))).expanduser())

    rank, device = launch(device, own.get("devices", 1))
    model.to(device)
    evaluator.prepare(rank, rank.number == 0)
    entries = [point.evaluate(evaluator, n, seeds, rank, folder) for point in points]
    levels = None
    if loss is not None and held_out is not None:
        triples = max(min(resolved.config.validation.n, n), len(loss.times))
        levels = level_losses(model, loss, held_out, triples, size, rank)
    likelihood = None
    if "likelihood" in own and held_out is not None:
        variance = build_bound_variance(resolved)
        pixels = points[0].generator.pixels
        likelihood = mean_bits(model, held_out, own["likelihood"], size, pixels, variance, rank)
    if rank.number == 0:
        settings = {"checkpoint": own["ckpt"], "step": step, "weights": weights}
        settings |= {"weights_sha256": sha256_of_state(model.state_dict())}
        settings |= {"continuous": resolved.config.continuous, "labels": resolved.plain()["labels"]}
        settings |= describe_run(n, evaluator, rank, device, size)
        title = f"{Path(resolved.config.exp).stem}: {n:,} images against {reference.name}"
        outputs = Outputs(folder, title, evaluator, settings, entries, seeds)
        outputs.draw_trajectory(model, points[0].generator)
        if levels is not None:
            outputs.draw_levels(*levels)
        if likelihood is not None:
            outputs.add(likelihood)
        outputs.write()
        for store in (store for point in points for store in point.stores):
            store.clear()


class _Point:
    """One point of a sweep: a sampler, and where its images are kept until everything is written."""

    def __init__(self, model: "ScoreModel", resolved: config.Resolved, n: int) -> None:
        from score_lightning.experiment import build

        self.generator = build.build_generator(resolved, n=n)
        self._model, self._resolved = model, resolved
        self.stores: list[BatchStore] = []

    def evaluate(self, evaluator: "Evaluator", n: int, seeds: list[int], rank: "Rank", folder: Path) -> "Entry":
        """The results of each seed."""
        from score_lightning.evaluation.outputs import Entry
        from score_lightning.experiment.loading import image_key
        from score_lightning.generation.generator import BatchStore

        device, show = next(self._model.parameters()).device, rank.number == 0
        results, start = [], time.monotonic()
        for seed in seeds:
            store = BatchStore(folder, image_key(self._model, self._resolved, self.generator, seed, device))
            self.stores.append(store)
            batches = self.generator(self._model, n, seed, rank, show, store)
            try:
                results.append(evaluator(batches, rank, shown=100, progress=show))
            except UserError:
                store.clear()  # broken images are of no use
                raise
        speed = n * len(seeds) / (time.monotonic() - start)
        evaluations = self.generator.evaluations(self._model)
        return Entry(results, speed, self._resolved.plain()["sampler"], evaluations)


def _evaluate_images(own: dict[str, Any], words: Sequence[str]) -> None:
    from score_lightning.evaluation.evaluator import batches_of
    from score_lightning.evaluation.outputs import Entry, Outputs, describe_run
    from score_lightning.evaluation.report import make_folder
    from score_lightning.experiment.build_evaluation import (
        build_evaluator,
        build_features,
        build_reference,
        read_images,
    )
    from score_lightning.runtime.processes import find_device, launch

    if "reference" not in own:
        raise UserError("images=… needs reference=NAME|DIR|NPZ to compare with")
    for key in ("seed", "seeds", "weights", "likelihood"):
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
    reference = build_reference(resolved, own["reference"])
    evaluator = build_evaluator(resolved, build_features(resolved, reference), reference, n)
    folder = make_folder(Path(own.get("out", ".")).expanduser())
    if folder.resolve() == Path(own["images"]).expanduser().resolve():
        raise UserError(f"{folder} holds the images: results would be images of the next evaluation; set out=DIR")

    rank, device = launch(device, own.get("devices", 1))
    evaluator.prepare(rank, rank.number == 0)
    size, start = resolved.config.evaluation.batch_size, time.monotonic()
    result = evaluator(batches_of(images, n, size, rank, device, rank.number == 0), rank, shown=100)
    entry = Entry([result], n / (time.monotonic() - start))
    if rank.number == 0:
        settings = {"images": own["images"], "images_sha256": images.sha256}
        settings |= describe_run(n, evaluator, rank, device, size, drawn=False)
        Outputs(folder, f"{own['images']}: {n:,} images against {reference.name}", evaluator, settings, [entry]).write()


if __name__ == "__main__":
    cli.run(main, usage)
