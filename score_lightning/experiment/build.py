"""From a configuration to the objects of a run: model, objective, generation, data, training."""

import math

import torch
from torch import nn

from score_lightning import objectives, schedules
from score_lightning.config import Resolved
from score_lightning.config.registry import TABLES, build_part, keyword_types, part_of
from score_lightning.config.schema import Config
from score_lightning.data import augment
from score_lightning.data.images import Shape
from score_lightning.data.module import ImageData
from score_lightning.data.pixels import Coordinates, PixelRange, Range
from score_lightning.data.sources import Split
from score_lightning.errors import UserError
from score_lightning.generation.generator import Generator
from score_lightning.models import ScoreModel
from score_lightning.runtime.memory import Bounded, check_bytes
from score_lightning.runtime.processes import PROCESS
from score_lightning.training.ema import WeightAverage
from score_lightning.training.module import Augmentation, ScoreModule
from score_lightning.training.optimizer import AdamSettings

EVALUATIONS = 1_000_000  # of the network, per image: days for one


def build_model(resolved: Resolved, batch_size: int = 1, copies: int = 1) -> ScoreModel:
    """Network, schedule and prediction; the network's initial weights are a function of the seed.

    Args:
        resolved: the configuration.
        batch_size: images that the model is to take at once.
        copies: of the weights that are to be in memory.

    Raises:
        UserError: when a part is unknown or refuses its values, or the network cannot take the images, or needs more
            than this machine's memory.
    """
    c = resolved.config
    schedule = build_schedule(resolved)
    with Bounded():
        model = _join(build_net(resolved, "meta"), schedule, c)
        _try(model, (batch_size, *shape_of(c)), copies, str(c.net.get("name")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(c.seed)
        net = build_net(resolved)
    # the same numbers in another order of memory, in which convolutions are faster
    return _join(net, schedule, c).to(memory_format=torch.channels_last)


def _join(net: nn.Module, schedule: schedules.Schedule, c: Config) -> ScoreModel:
    try:
        return ScoreModel(net, schedule, c.prediction, c.conditioning, c.sigma_data)
    except ValueError as error:
        raise UserError(str(error)) from error


def build_net(resolved: Resolved, device: str = "cpu") -> nn.Module:
    """The network, told what the configuration says elsewhere: the shape of the data, the levels, labels.

    On the device `meta` it has shapes and takes no memory.

    Raises:
        UserError: when it is unknown, refuses its values or cannot be told something.
    """
    c = resolved.config
    discrete = build_part(resolved, "schedule", {})
    shape_of(c)
    given: dict[str, object] = (
        {"dim": c.points} if c.points else {"image_size": c.images.size, "image_channels": c.images.channels}
    )
    given |= {} if discrete.levels is None else {"levels": discrete.levels}
    for keyword, value, key, what in [
        ("classes", c.labels.classes, "labels.classes", "labels"),
        ("augmentation", augment.PARAMETERS if c.images.augment > 0 else None, "images.augment", "augmentations"),
    ]:
        if value is not None:
            given[keyword] = value
            _check_takes(c.net.get("name"), keyword, f"{key}: net {c.net.get('name')} cannot be told {what}")
    with torch.device(device):
        net: nn.Module = build_part(resolved, "net", given)
    return net


def _check_takes(net: object, keyword: str, reason: str) -> None:
    """Refuses a network without a keyword."""
    taking = [name for name, constructor in TABLES["net"].items() if keyword in keyword_types(constructor)]
    if net in TABLES["net"] and net not in taking:
        raise UserError(f"{reason}; {' and '.join(taking)} can")


def build_schedule(resolved: Resolved) -> schedules.Schedule:
    """The noise levels; with `continuous` also the times between them.

    Raises:
        UserError: when the schedule is unknown, refuses its values, or has no limit.
    """
    schedule = build_part(resolved, "schedule", {})
    try:
        return schedule.continuous() if resolved.config.continuous else schedule
    except ValueError as error:
        raise UserError(f"continuous: {error}") from error


@torch.no_grad()
def _try(model: ScoreModel, shape: tuple[int, ...], copies: int, name: str) -> None:
    """Refuses a network that cannot take the images or the conditioning, or that no memory holds, on `meta`."""
    taken = f"images of {shape[2]} pixels with {shape[1]} channels" if len(shape) > 2 else f"{shape[1]} coordinates"
    try:
        check_bytes(copies * sum(p.nbytes for p in model.parameters()), f"{copies} copies of its weights")
        t = model.schedule.times(1).expand(shape[0]).to("meta")
        found = model.eval()(torch.zeros(shape, device="meta"), t).eps.shape
    except MemoryError as error:
        raise UserError(f"net {name} is too large for {shape[0]} {taken}: {error}") from error
    except (ValueError, TypeError, RuntimeError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"net {name} cannot take {taken}, or its conditioning: {reason}") from error
    if found != shape:
        raise UserError(f"net {name} returns {tuple(found)} for data of shape {shape}")


def build_objective(resolved: Resolved, schedule: schedules.Schedule) -> objectives.Objective:
    """The loss.

    Raises:
        UserError: when it is unknown, refuses its values, or makes no sense with the schedule or so many dimensions.
    """
    pixels = build_pixels(resolved.config)
    _check_variances(resolved, "objective")
    objective: objectives.Objective = build_part(
        resolved, "objective", {"low": pixels.low, "high": pixels.high, "levels": schedule.levels}
    )
    try:
        objective.check(schedule, math.prod(shape_of(resolved.config)))
    except ValueError as error:
        raise UserError(f"objective: {error}") from error
    return objective


def build_generator(
    resolved: Resolved,
    section: str = "sampler",
    batch_size: int | None = None,
    label: int | None = None,
    n: int = 1,
) -> Generator:
    """The generation of n images with the sampler of a section, `sampler` or `preview`.

    Raises:
        UserError: when the sampler is unknown, refuses its values or does not suit the schedule, takes forever, or the
            images do not fit into memory.
    """
    c = resolved.config
    pixels = build_pixels(c)
    _check_variances(resolved, section)
    if c.labels.guidance != 0 and c.labels.classes is None:
        raise UserError(
            f"labels.guidance={c.labels.guidance:g} needs a model that is told labels; this one is not: train one with "
            "labels.classes=N, or leave guidance at 0"
        )
    if c.labels.guidance != 0 and c.labels.drop == 0:
        raise UserError(
            "labels.guidance needs a model that was trained without labels, too: train with labels.drop=0.1"
        )
    if label is not None and not 0 <= label < (c.labels.classes or 0):
        raise UserError(
            f"label must lie between 0 and {c.labels.classes - 1}, got {label}"
            if c.labels.classes
            else "label=K needs a model that is told labels; this one is not: train one with labels.classes=N"
        )
    sampler = build_part(resolved, section, {"pixels": (pixels.low, pixels.high)})
    schedule = build_schedule(resolved)
    shape = shape_of(c)
    try:
        evaluations = sampler.evaluations(schedule)
        check_bytes(n * math.prod(shape), f"{n} images")
    except (ValueError, TypeError, MemoryError) as error:
        raise UserError(f"{section}: {error}") from error
    if evaluations is not None and evaluations > EVALUATIONS:
        raise UserError(f"{section}: {evaluations:,} evaluations of the network per image; at most {EVALUATIONS:,}")
    size = batch_size or c.evaluation.batch_size
    return Generator(sampler, shape, pixels, size, label, c.labels.guidance)


def _check_variances(resolved: Resolved, section: str) -> None:
    """Refuses what needs learned variances of a network that does not learn them."""
    part, net = part_of(resolved.config, section), resolved.config.net
    wanted = part.get("variance") == "learned" or part.get("name") == "hybrid"
    if wanted and not net.get("learned_variance"):
        raise UserError(
            f"{section} {part.get('name')} needs learned variances: train with net.learned_variance=true, as unet can"
            + ("" if section == "objective" else f", or take {section}.variance=small or large")
        )


def shape_of(config: Config) -> tuple[int, ...]:
    """(C, H, W) of an image, or (D,) of a point.

    Raises:
        UserError: when it is not known, or makes no sense.
    """
    images = config.images
    if config.points > 0:
        return (config.points,)
    if config.points < 0 or images.size < 1 or images.channels not in (1, 3):
        raise UserError(
            f"images.size must be positive and images.channels 1 or 3, got {images.size}, {images.channels}; or "
            f"points, the dimensions of data that are no images, got {config.points}"
        )
    return (images.channels, images.size, images.size)


def build_pixels(config: Config) -> Range:
    """The range of pixels in the model; none of points.

    Raises:
        UserError: when it is not [low, high].
    """
    if config.points:
        return Coordinates()
    try:
        return PixelRange(*config.images.range)
    except (ValueError, TypeError) as error:
        raise UserError(f"images.range: {error}") from error


def build_images(resolved: Resolved) -> Split:
    """Training and validation images.

    Raises:
        UserError: when they cannot be read.
    """
    c = resolved.config
    shape = shape_of(c)
    split: Split = build_part(resolved, "data", {"shape": Shape(c.images.size, c.images.channels)})
    if split[0].shape != shape:
        raise UserError(
            f"data {c.data.get('name')} has data of shape {split[0].shape}, the model takes {shape}: set "
            + ("points" if c.points else "images.size and images.channels")
        )
    for images in split:
        if c.labels.classes is not None and images.labels is not None and images.labels.max() >= c.labels.classes:
            raise UserError(
                f"labels.classes={c.labels.classes} needs images with that many labels; these have "
                f"{int(images.labels.max()) + 1}"
            )
    return split


def build_data(resolved: Resolved, split: Split) -> ImageData:
    """The loaders of a run.

    Raises:
        UserError: when a network is to be told labels that the images do not have, or there are too many workers.
    """
    c = resolved.config
    if c.labels.classes is not None and any(images.labels is None for images in split):
        raise UserError(f"labels.classes={c.labels.classes} needs images with that many labels; these have none")
    try:
        check_bytes(c.trainer.workers * PROCESS, f"{c.trainer.workers} processes")
    except MemoryError as error:
        raise UserError(f"trainer.workers: {error}") from error
    steps = c.trainer.max_steps * c.trainer.accumulate
    return ImageData(*split, c.trainer.batch_size, steps, c.validation.n, c.seed, c.trainer.workers)


def build_module(resolved: Resolved) -> ScoreModule:
    """The training of a model.

    Raises:
        UserError: when a part is unknown or refuses its values.
    """
    c = resolved.config
    # on this machine: the weights, their average, their gradient and Adam's two moments
    model = build_model(resolved, math.ceil(c.trainer.batch_size / max(c.trainer.num_nodes, 1)), copies=5)
    o = c.optimizer
    adam = AdamSettings(
        o.lr, (o.betas[0], o.betas[1]), o.eps, o.weight_decay, o.warmup, c.trainer.max_steps if o.decay else None
    )
    return ScoreModule(
        model,
        build_objective(resolved, model.schedule),
        Augmentation(
            build_pixels(c), c.images.flip and not c.points, c.images.dequantize, c.labels.drop, c.images.augment
        ),
        adam,
        WeightAverage(model, c.ema.decay, c.ema.warmup, c.ema.ramp),
        c.seed,
        c.validation.levels,
        resolved.plain(),
        c.trainer.skip_nonfinite,
        c.trainer.compile,
    )
