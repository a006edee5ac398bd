"""Checks of settings that only make sense together, with the remedy in the message."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from score_lightning.conditional import Strength
from score_lightning.config import Config, suggest
from score_lightning.config.registry import keyword_types, part_of
from score_lightning.data.sources import Split
from score_lightning.data.summary import summarize
from score_lightning.errors import UserError, mistakes_in
from score_lightning.experiment.shapes import data_shape, image_depth
from score_lightning.samplers import Sampler
from score_lightning.schedules import Schedule

EVALUATIONS = 1_000_000  # of the network, per image: days for one


def find_label(config: Config, label: str | None, classes: Sequence[str] | None) -> int | None:
    """The number of a class, of those by number, that is given by its name, or by its number where no name is one.

    Raises:
        UserError: when there is no such class, or the model cannot be conditioned on labels or guided by them.
    """
    labels = config.labels
    remedy = "needs a model conditioned on labels; this one is not: train one with labels.classes=N"
    if labels.guidance != 0 and labels.classes is None:
        raise UserError(f"labels.guidance={labels.guidance:g} {remedy}, or leave guidance at 0")
    if labels.guidance != 0 and labels.drop == 0:
        raise UserError(
            "labels.guidance needs a model that was also trained without labels: train with labels.drop=0.1"
        )
    if label is None:
        return None
    if classes is None:
        raise UserError(f"label=K {remedy}")
    if label in classes:
        return list(classes).index(label)
    named = not all(map(str.isdecimal, classes))
    if named and label.isdecimal() and int(label) < len(classes):
        return int(label)
    raise UserError(
        f"label must be one of the classes {summarize(classes)}"
        + (f", or a number from 0 to {len(classes) - 1}" if named else "")
        + f"; got {label!r}{suggest(label, classes)}"
    )


def guidance_strength(config: Config, weight: float, sampler: Sampler, schedule: Schedule) -> Strength:
    """Guidance of this weight in the interval of the configuration.

    Raises:
        UserError: when the interval is empty, or the sampler visits no time in it.
    """
    ends = config.guidance_interval or [0.0, math.inf]
    key = f"guidance_interval={config.guidance_interval}"
    if len(ends) != 2:
        raise UserError(f"{key}: give two noise levels, [low,high], or [] for all")
    with mistakes_in(key):
        one = Strength(1.0, *ends)
    visited = schedule.ratio(sampler.times(schedule))
    if sampler.predictor is not None and sampler.predictor.evaluations is None:  # it visits all times between them
        inside = bool(one.low <= visited.max() and visited.min() <= one.high)
    else:
        inside = bool(((one.low <= visited) & (visited <= one.high)).any())
    if weight and not inside:
        raise UserError(f"{key}: the sampler visits no noise level there; take another interval, or more steps")
    return Strength(weight, *ends)


def check_variances(config: Config, section: str) -> None:
    """Refuses a sampler or objective that needs learned variances, of a network that does not learn them.

    Raises:
        UserError: with the remedy.
    """
    part = part_of(config, section)
    needed = part.get("variance") == "learned" or part.get("name") == "hybrid"
    if needed and not config.net.get("learned_variance"):
        raise UserError(
            f"{section} {part.get('name')} needs learned variances: train with net.learned_variance=true, as unet "
            "can" + ("" if section == "objective" else f", or take {section}.variance=small or large")
        )


def check_accepts(net: object, keyword: str, reason: str, networks: Mapping[str, Callable[..., Any]]) -> None:
    """Refuses a network without a keyword, for a reason, among networks by name.

    Raises:
        UserError: naming the networks that have it.
    """
    accepting = [name for name, constructor in networks.items() if keyword in keyword_types(constructor)]
    if net in networks and net not in accepting:
        raise UserError(f"{reason}; {' and '.join(accepting)} can")


def check_attention(config: Config) -> None:
    """Refuses attention at resolutions that a U-Net does not have.

    Raises:
        UserError: with those that it has.
    """
    asked, multipliers = config.net.get("attention"), config.net.get("multipliers")
    if not isinstance(asked, list) or not isinstance(multipliers, list):
        return
    shortest = min(data_shape(config)[1:])
    levels = [shortest // 2**i for i in range(len(multipliers))]
    unmet = [resolution for resolution in asked if resolution not in levels]
    if unmet:
        near = [min(levels, key=lambda level: abs(level - resolution)) for resolution in asked]
        raise UserError(
            f"net.attention={asked}: there are no levels of {', '.join(map(str, unmet))} pixels, of images of "
            f"{shortest} pixels there are {levels}; set net.attention={sorted(set(near))}, or [] for none"
        )


def check_evaluations(section: str, sampler: Sampler, schedule: Schedule) -> None:
    """Refuses a sampler that does not suit a schedule, or would never end.

    Raises:
        UserError: naming the section that it stands in.
    """
    with mistakes_in(section, TypeError):
        evaluations = sampler.evaluations(schedule)
    if evaluations is not None and evaluations > EVALUATIONS:
        raise UserError(f"{section}: {evaluations:,} evaluations of the network per image; at most {EVALUATIONS:,}")


def check_data(config: Config, shape: tuple[int, ...], split: Split, training: bool) -> None:
    """Refuses data of another shape than the model's, or of more classes; for a training also of fewer.

    Raises:
        UserError: with the remedy.
    """
    if split[0].shape != shape:
        raise UserError(
            f"data {config.data.get('name')} has data of shape {split[0].shape}, the model takes {shape}: set "
            + ("points" if config.points else "images.size and images.channels")
        )
    if not config.points and any(images.depth != image_depth(config.images) for images in split):
        raise UserError(
            f"data {config.data.get('name')} has pixels of {split[0].depth}, the model takes those of "
            f"{image_depth(config.images)}: set images.depth and images.input_range"
        )
    _check_classes(config.labels.classes, split, training)


def _check_classes(classes: int | None, split: Split, training: bool) -> None:
    """Refuses a number of classes other than that of the images, or classes that no image is of.

    Raises:
        UserError: with the remedy.
    """
    parts = [images.labels for images in split if images.labels is not None]
    if classes is None or not parts:
        return
    labels, names = torch.cat(parts), split[0].source.classes
    have = int(labels.max()) + 1 if names is None else len(names)
    if classes < have or (training and classes != have):
        listed = "" if names is None else f" ({summarize(names)})"
        raise UserError(f"labels.classes={classes}: the images have {have} classes{listed}; set labels.classes={have}")
    missing = sorted(set(range(have)) - set(labels.tolist()))
    if missing and training:
        raise UserError(f"labels.classes={classes}: no image has the label {missing[0]}; number classes from 0 on")


def check_labeled(classes: int | None, split: Split) -> None:
    """Refuses images without labels for a model that is conditioned on them.

    Raises:
        UserError: with the remedy.
    """
    if classes is not None and any(images.labels is None for images in split):
        why = [note for note in split[0].source.notes if "classes" in note]
        raise UserError(
            f"labels.classes={classes} needs images with labels, such as class folders; these have none"
            + "".join(f": {note}" for note in why)
        )
