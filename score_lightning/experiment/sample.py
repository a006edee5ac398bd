"""From a checkpoint to samples.png and samples.npz."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_lightning.config import Parts
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.checks import guidance_strength
from score_lightning.experiment.loading import image_key, open_checkpoint
from score_lightning.experiment.pictures import check_sample
from score_lightning.experiment.shapes import picture_shape
from score_lightning.experiment.unused import say_unused
from score_lightning.formats.native import output_folder_of
from score_lightning.generation.conditions import Conditions
from score_lightning.generation.generator import Generator, check_finite
from score_lightning.generation.given import read_conditions
from score_lightning.generation.pictures import alike, class_captions, save_aligned, save_grid, save_samples
from score_lightning.generation.store import BatchStore
from score_lightning.generation.tasks import interpolation, read_known, read_pair
from score_lightning.runtime.files import atomic_file, naming, output_folder
from score_lightning.runtime.processes import Rank, find_device, launch
from score_lightning.samplers import Sampler

FILES = ("samples.png", "samples.npz")
SHOWN = 100  # images in samples.png


def sample(options: dict[str, Any], overrides: Sequence[str], n: int, parts: Parts | None = None) -> None:
    """Draws n images and writes them, with parts of the user's own; see the command's usage for its options.

    Raises:
        UserError: for a mistake in the options or overrides.
    """
    ckpt, batch_size, task = options["ckpt"], options.get("batch_size", 256), options.get("task")
    experiment = open_checkpoint(ckpt, overrides, options.get("weights", "ema"), parts).experiment
    check_sample(experiment.config, experiment.condition, options)
    say_unused(experiment.resolved, "sample" if task is None and "image" not in options else "task")
    generator = experiment.generator(batch_size, options.get("label"), n)
    known, pair = None, None
    if experiment.condition is not None:
        if "image" in options:
            given = _read_given(experiment, options)
            generator = replace(generator, conditions=given)
            n = given.count * options.get("n", 15 if given.count == 1 else 1)
            known = given.shown(given.count, generator.pixels)
    elif task == "interpolate":
        if experiment.guide is not None or experiment.config.labels.guidance:
            raise UserError("task=interpolate is not guided: leave out guide and labels.guidance")
        pair = read_pair(options.get("image"), _image_shape(experiment, task))
    elif task is not None:
        knowledge = read_known(options, _image_shape(experiment, task), generator.pixels)
        sampler = _of_strength(generator.sampler, options.get("strength", 0.5), experiment) if task == "edit" else None
        generator = replace(generator, measurement=knowledge.measurement, sampler=sampler or generator.sampler)
        known = knowledge.picture[None]
    device = find_device(options.get("device", "auto"))
    with output_folder(Path(options.get("out", output_folder_of(ckpt))).expanduser(), FILES) as folder:
        rank, device = launch(device, options.get("devices", 1))
        experiment.model.to(device)
        if pair is not None:
            path = interpolation(experiment.model, pair, n, generator.pixels, batch_size)
            _write(path, None, folder, depth=generator.pixels.depth)
            return
        images, store = _generate(experiment, generator, n, options.get("seed", 0), rank, folder)
        if rank.number == 0:
            shown = class_captions(experiment.classes, min(n, SHOWN), generator.label)
            _write(images, known, folder, shown, generator.pixels.depth)
            store.clear()


def _read_given(experiment: Experiment, options: dict[str, Any]) -> Conditions:
    """The pictures that images are to be given; with a task these keep what the pictures say."""
    assert experiment.condition is not None
    shape, exact = picture_shape(experiment.config.images), "task" in options
    return read_conditions(options["image"], options.get("mask"), experiment.condition, shape, experiment.pixels, exact)


def _of_strength(sampler: Sampler, strength: float, experiment: Experiment) -> Sampler:
    """The sampler of the last share of its times."""
    weaker, all_times = replace(sampler, strength=strength), len(sampler.times(experiment.schedule))
    left = len(weaker.times(experiment.schedule))
    if left < 2:
        raise UserError(
            f"strength={strength:g} leaves {left} of the sampler's {all_times} times, which changes nothing: take more "
            "strength, or a sampler of more times, such as sampler=ddim sampler.steps=50"
        )
    for weight in (experiment.config.labels.guidance, experiment.config.guidance):
        guidance_strength(experiment.config, weight, weaker, experiment.schedule)
    return weaker


def _image_shape(experiment: Experiment, task: str) -> Shape:
    if experiment.config.points:
        raise UserError(f"task={task} is of images; this model draws points")
    return picture_shape(experiment.config.images)


def _generate(
    experiment: Experiment, generator: Generator, n: int, seed: int, rank: Rank, folder: Path
) -> tuple[Tensor, BatchStore]:
    """(n, C, H, W) of all ranks, at rank 0, and where they are kept until they are written."""
    model = experiment.model
    store = BatchStore(folder, image_key(experiment, generator, seed, next(model.parameters()).device))
    mine, broken = [], []
    for batch in generator(model, n, seed, rank, rank.number == 0, store):
        mine.append((batch.indices.clone(), batch.images.cpu()))  # a view would be sent with all indices
        broken += batch.indices[~batch.finite].tolist()
    try:
        check_finite([i for part in rank.gather(broken) for i in part], n)
    except UserError:
        store.clear()  # broken images are of no use
        raise
    everyones = list(chain(*rank.collect(mine)))
    if not everyones:
        return torch.empty(0), store
    indices, images = (torch.cat(parts) for parts in zip(*everyones, strict=True))
    return images[indices.argsort()], store


def _write(
    images: Tensor,
    known: Tensor | None,
    folder: Path,
    captions: Sequence[str] | None = None,
    depth: Depth = EIGHT_BITS,
) -> None:
    """Writes samples.npz and samples.png, which shows what was known (N, C, H, W), and the class of each image.

    One known picture comes first, of several each stands above its samples.
    """
    picture, npz = (folder / name for name in FILES)
    first, points = images[:SHOWN], images.ndim == 2
    arrays = {"points": images.numpy()} if points else {"images": images.permute(0, 2, 3, 1).numpy()}
    with naming(npz), atomic_file(npz) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    content = f"the first {min(SHOWN, len(images))}"
    with naming(picture):
        if points:
            save_samples(images, picture)
        elif known is None:
            save_grid(first, picture, captions=captions, depth=depth)
        elif len(known) == 1:
            both = torch.cat(alike([known, first], depth))
            save_grid(both, picture, captions=captions and ["known", *captions])
            content = f"what is known, and {content}"
        else:
            shown = max(1, SHOWN * len(known) // len(images))
            save_aligned([row[:shown] for row in (known, *images.split(len(known)))], picture, depth)
            content = f"samples below what is known, of {min(shown, len(known))}"
    if points:
        print(f"Drew {len(images)} points: {picture} and {npz}")
        return
    print(f"Drew {len(images)} images: {picture} ({content}) and {npz} (all)")
