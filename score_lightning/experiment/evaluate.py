"""From a checkpoint, or pictures, to metrics.json, report.html and plots."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from score_lightning import config
from score_lightning.config import Parts
from score_lightning.data.summary import announce
from score_lightning.errors import UserError
from score_lightning.evaluation.evaluator import Evaluator, batches_of
from score_lightning.evaluation.fidelity import Fidelity, spread
from score_lightning.evaluation.model_losses import Likelihood, level_losses, mean_bits
from score_lightning.evaluation.outputs import FILES, Entry, Outputs, describe_run
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.evaluation import Evaluation, read_images
from score_lightning.experiment.loading import (
    Opened,
    condition_settings,
    guidance_settings,
    image_key,
    open_checkpoint,
)
from score_lightning.experiment.shapes import depth_overrides, picture_shape
from score_lightning.experiment.unused import say_unused
from score_lightning.formats.native import output_folder_of
from score_lightning.generation.pictures import class_captions
from score_lightning.generation.store import BatchStore
from score_lightning.models import ScoreModel
from score_lightning.runtime.files import output_folder, sha256_of_state
from score_lightning.runtime.processes import Rank, find_device, launch
from score_lightning.runtime.startup import is_first

SHOWN = 100  # images in samples.png


def evaluate_checkpoint(
    options: dict[str, Any],
    overrides: Sequence[str],
    sweep: Sequence[Sequence[str]],
    seeds: list[int],
    parts: Parts | None = None,
) -> None:
    """Evaluates a checkpoint with each sampler of a sweep, with parts of the user's own; see the command's usage.

    Raises:
        UserError: for a mistake in the options or overrides.
    """
    opened = open_checkpoint(options["ckpt"], overrides, options.get("weights", "ema"), parts)
    experiment, c = opened.experiment, opened.experiment.config
    if c.points:
        raise UserError("this model draws points, which have no metrics of images: look at them with sample ckpt=PATH")
    n = options.get("n", c.evaluation.n or 1000)
    say_unused(experiment.resolved, "eval")
    of_sampler = [override for override in overrides if override.startswith("sampler.")]  # for each sampler of a list
    points = [_Point(experiment, [*of_sampler, *point], options["ckpt"], n) for point in sweep]
    device = find_device(options.get("device", "auto"))
    evaluation = Evaluation(experiment, options.get("reference"), n)
    evaluator, conditions = evaluation.evaluator, evaluation.conditions
    _check_likelihood(options, evaluation)
    _announce_reference(evaluation)
    with output_folder(Path(options.get("out", output_folder_of(options["ckpt"]))).expanduser(), FILES) as folder:
        rank, device = launch(device, options.get("devices", 1))
        experiment.model.to(device)
        evaluator.prepare(rank, rank.number == 0)
        fidelity = None if conditions is None else Fidelity(conditions, experiment.pixels, rank)
        entries = [point.evaluate(evaluator, fidelity, n, seeds, rank, folder) for point in points]
        losses = _losses(options, evaluation, experiment, n, rank)
        if rank.number == 0:
            run = describe_run(n, evaluator, rank, device, c.evaluation.batch_size, experiment.pixels.quantizer)
            settings = {**_settings(options, opened), **run}
            title = f"{Path(c.exp).stem}: {n:,} images against {evaluation.reference.name}"
            outputs = Outputs(
                folder, title, evaluator, settings, entries, seeds, class_captions(experiment.classes, SHOWN)
            )
            outputs.draw_trajectory(experiment.model, points[0].generator)
            if losses.levels is not None:
                outputs.draw_levels(*losses.levels)
            if losses.likelihood is not None:
                outputs.add(losses.likelihood)
            if fidelity is not None:
                outputs.beside, outputs.unavailable = fidelity.beside(min(n, SHOWN)), fidelity.unavailable
            outputs.write()
            for store in (store for point in points for store in point.stores):
                store.clear()


def _announce_reference(evaluation: Evaluation) -> None:
    """Says what images are compared with."""
    reference = evaluation.reference
    if reference.images is not None:
        name = reference.name if reference.held_out is None else f"{reference.name}, the training images"
        announce(f"reference {name}", reference.images)
    elif is_first():
        print(f"reference {reference.name}: statistics, without images")


def _check_likelihood(options: dict[str, Any], evaluation: Evaluation) -> None:
    held_out = evaluation.held_out
    if "likelihood" in options and (held_out is None or not 2 <= options["likelihood"] <= len(held_out)):
        raise UserError(
            "likelihood=N needs held-out images: leave out reference=…, name a data set, or set data.validation above 0"
            if held_out is None
            else f"likelihood must lie between 2 and the {len(held_out)} held-out images, got {options['likelihood']}"
        )


def _settings(options: dict[str, Any], opened: Opened) -> dict[str, Any]:
    """What metrics.json says of the model."""
    experiment = opened.experiment
    return {
        "checkpoint": options["ckpt"],
        "step": opened.step,
        "weights": options.get("weights", "ema"),
        "weights_sha256": sha256_of_state(experiment.model.state_dict()),
        "continuous": experiment.config.continuous,
        "labels": experiment.resolved.plain()["labels"],
        **condition_settings(experiment),
        **guidance_settings(experiment),
    }


@dataclass(frozen=True)
class _Losses:
    """Of held-out images: (sigma / alpha, validation loss) at each level, and bits per dimension; None without."""

    levels: tuple[Tensor, Tensor] | None = None
    likelihood: Likelihood | None = None


def _losses(options: dict[str, Any], evaluation: Evaluation, experiment: Experiment, n: int, rank: Rank) -> _Losses:
    """The losses that the reference allows and the options ask for; every rank must call."""
    c, held_out, size = experiment.config, evaluation.held_out, experiment.config.evaluation.batch_size
    levels = likelihood = None
    if "reference" not in options:
        try:
            loss = evaluation.validation
        except UserError:  # an objective of discrete levels, of a model that was made continuous
            if not c.continuous:
                raise
        else:
            triples = max(min(c.validation.n, n), len(loss.times))
            levels = level_losses(experiment.model, loss, experiment.split[1], triples, size, rank)
    if "likelihood" in options and held_out is not None:
        variance, pixels = evaluation.bound_variance, experiment.pixels
        likelihood = mean_bits(
            experiment.model, held_out, options["likelihood"], size, pixels, variance, rank, evaluation.conditions
        )
    return _Losses(levels, likelihood)


class _Point:
    """One point of a sweep: a sampler, and where its images are kept until everything is written."""

    def __init__(self, experiment: Experiment, overrides: Sequence[str], source: str, n: int) -> None:
        resolved = config.change(experiment.resolved.plain(), source, overrides)
        self._experiment = experiment.with_config(resolved)
        self.generator = self._experiment.generator(n=n)
        self.stores: list[BatchStore] = []

    def evaluate(
        self, evaluator: Evaluator, fidelity: Fidelity | None, n: int, seeds: list[int], rank: Rank, folder: Path
    ) -> Entry:
        """The results of each seed, of images that are given conditions if there are truths to be faithful to."""
        model: ScoreModel = self._experiment.model
        device, progress = next(model.parameters()).device, rank.number == 0
        conditions = None if fidelity is None else fidelity.conditions
        self.generator = replace(self.generator, conditions=conditions).measured(model, progress)
        results, start = [], time.monotonic()
        for seed in seeds:
            store = BatchStore(folder, image_key(self._experiment, self.generator, seed, device))
            self.stores.append(store)
            batches = self.generator(model, n, seed, rank, progress, store)
            watched = batches if fidelity is None else fidelity.watch(batches)
            try:
                result = evaluator(watched, rank, shown=SHOWN, progress=progress)
            except UserError:
                store.clear()  # broken images are of no use
                raise
            more = result.values if fidelity is None else result.values | fidelity.compute()
            results.append(replace(result, values=more))
        speed = n * len(seeds) / (time.monotonic() - start)
        sampler, across = self._experiment.resolved.plain()["sampler"], None
        if conditions is not None and len(seeds) > 1:
            kept = zip(seeds, self.stores, strict=True)  # nothing is drawn again
            across = spread(
                [self.generator(model, n, seed, rank, store=store) for seed, store in kept], conditions, rank
            )
        evaluations = self.generator.evaluations(model)
        return Entry(results, speed, sampler, evaluations, self.generator.pilot_evaluations, across)


def evaluate_images(options: dict[str, Any], overrides: Sequence[str], parts: Parts | None = None) -> None:
    """Evaluates pictures that are there already, with parts of the user's own.

    Raises:
        UserError: for a mistake in the options or overrides.
    """
    path = options["images"]
    plain: dict[str, Any] = {"exp": "images", "trainer": {"max_steps": 1}}
    given = config.change(plain, "images=" + path, overrides)
    shape = picture_shape(replace(given.config.images, size=1))  # whatever is not known yet
    images = read_images(path, None, shape.background, shape.depth if "images.depth" in given.origins else None)
    n = options.get("n", len(images))
    if not 1 <= n <= len(images):
        raise UserError(f"{path} holds {len(images)} images; n must lie between 1 and that, got {n}")
    channels, height, width = images.shape
    measured = [f"images.size=[{height},{width}]", f"images.channels={channels}", *depth_overrides(images.depth)]
    experiment = Experiment(config.change(plain, "images=" + path, [*overrides, *measured]), parts=parts)
    say_unused(given, "images")
    device = find_device(options.get("device", "auto"))
    evaluation = Evaluation(experiment, options["reference"], n)
    evaluator = evaluation.evaluator
    announce(path, images)
    _announce_reference(evaluation)
    folder = Path(options.get("out", ".")).expanduser()
    if folder.resolve() == Path(path).expanduser().resolve():
        raise UserError(f"{folder} holds the images: results would be images of the next evaluation; set out=DIR")
    with output_folder(folder, FILES):
        rank, device = launch(device, options.get("devices", 1))
        evaluator.prepare(rank, rank.number == 0)
        size, start = experiment.config.evaluation.batch_size, time.monotonic()
        result = evaluator(batches_of(images, n, size, rank, device, rank.number == 0), rank, shown=SHOWN)
        entry = Entry([result], n / (time.monotonic() - start))
        if rank.number == 0:
            settings = {"images": path, "images_sha256": images.sha256}
            settings |= describe_run(n, evaluator, rank, device, size)
            title = f"{path}: {n:,} images against {evaluation.reference.name}"
            Outputs(folder, title, evaluator, settings, [entry]).write()
