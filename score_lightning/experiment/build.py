"""From a resolved configuration to the objects of a run: each is built once, checked once and then shared.

`Experiment` is the only place that turns names into objects; everything else receives objects.
"""

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import nn

from score_lightning.conditional import Condition
from score_lightning.config import Parts, Resolved
from score_lightning.config.registry import build_part, own_files, with_own
from score_lightning.data import augment
from score_lightning.data.decoded import decode_split
from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import Coordinates, PixelRange, Range
from score_lightning.data.sources import Split
from score_lightning.errors import UserError, mistakes_in
from score_lightning.experiment import checks, pictures, shapes
from score_lightning.experiment.memory import build_within_memory, check_forward
from score_lightning.generation.conditions import Conditions, of_images
from score_lightning.generation.generator import Generator
from score_lightning.models import ScoreModel
from score_lightning.objectives import Objective
from score_lightning.runtime.memory import check_bytes
from score_lightning.runtime.processes import local_processes
from score_lightning.samplers import Sampler
from score_lightning.schedules import Schedule


class Experiment:
    """The objects of a resolved configuration, to sample and evaluate with; `TrainingExperiment` has those of training.

    Args:
        resolved: the configuration.
        split: training and validation images, in place of those of the configuration.
        classes: names of the classes that a trained model was conditioned on, by number, where they are known.
        parts: networks, objectives and other parts of a user's own, which the configuration may name.

    Raises:
        UserError: when a part is unknown, refuses its values, or does not suit another one; each when it is first
            asked for.
    """

    training = False
    guide: ScoreModel | None = None

    def __init__(
        self,
        resolved: Resolved,
        split: Split | None = None,
        classes: Sequence[str] | None = None,
        parts: Parts | None = None,
    ) -> None:
        self.resolved, self.config = resolved, resolved.config
        self.parts = parts or {}
        self.tables = with_own(self.parts)
        self._split, self._classes = split, classes

    def _memory_needed(self) -> tuple[int, int]:
        """Images that the model takes at once at least, and copies of its weights, on this machine."""
        return 1, 1

    def _class_names(self) -> Sequence[str] | None:
        return self._classes

    def with_config(self, resolved: Resolved) -> "Experiment":
        """An experiment with another sampler for the same model, which is shared."""
        other = type(self)(resolved, classes=self._classes, parts=self.parts)
        other.__dict__ |= {"model": self.model, "schedule": self.schedule, "guide": self.guide}
        return other

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image, or (D,) of a data point."""
        return shapes.data_shape(self.config)

    @cached_property
    def pixels(self) -> Range:
        """The range of pixels in the model; data other than images are taken as they are."""
        if self.config.points:
            return Coordinates()
        with mistakes_in("images.range"):
            low, high = self.config.images.range
            return PixelRange(low, high, self.config.images.dequantize, shapes.image_depth(self.config.images))

    @cached_property
    def _levels(self) -> Schedule:
        """The schedule as it is named, before its continuous limit is taken."""
        schedule: Schedule = build_part(self.resolved, "schedule", {}, self.tables)
        return schedule

    @cached_property
    def schedule(self) -> Schedule:
        """The noise schedule; with `continuous` the limit of a discrete one."""
        with mistakes_in("continuous"):
            return self._levels.continuous() if self.config.continuous else self._levels

    @cached_property
    def model(self) -> ScoreModel:
        """Network, schedule and prediction; the network's initial weights are a function of the seed."""
        c, name = self.config, str(self.config.net.get("name"))
        batch, copies = self._memory_needed()
        shape = (batch, *self.shape)
        sides = " x ".join(map(str, dict.fromkeys(shape[2:])))
        taken = f"images of {sides} pixels with {shape[1]} channels" if sides else f"{shape[1]} coordinates"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.seed)
            try:
                with build_within_memory(copies):
                    net = self.build_net()
            except MemoryError as error:
                raise UserError(f"net {name} is too large for {batch} {taken}: {error}") from error
        model = self.with_prediction(net)
        check_forward(model, shape, f"net {name}", taken)
        # the same numbers in another order of memory, in which convolutions are faster
        return model.to(memory_format=torch.channels_last)

    def with_prediction(self, net: nn.Module) -> ScoreModel:
        """The model of a network."""
        c = self.config
        try:
            return ScoreModel(net, self.schedule, c.prediction, c.conditioning, c.sigma_data)
        except ValueError as error:
            raise UserError(f"{error}{own_files(self.resolved, 'prediction', 'conditioning', 'sigma_data')}") from error

    def build_net(self, device: str = "cpu") -> nn.Module:
        """A new network, given the shape of the data, levels and labels; on the device `meta` it takes no memory."""
        c, levels, channels = self.config, self._levels.levels, self.shape[0]
        given: dict[str, object] = {"dim": channels} if c.points else shapes.of_network(c.images)
        given |= {} if levels is None else {"levels": levels}
        pictured = None if self.condition is None else self.condition.channels(channels)
        for keyword, value, key, what in [
            ("condition_channels", pictured, f"condition {c.condition.get('name')}", "a picture"),
            ("classes", c.labels.classes, "labels.classes", "labels"),
            ("augmentation", augment.PARAMETERS if c.images.augment > 0 else None, "images.augment", "augmentations"),
        ]:
            if value is not None:
                given[keyword] = value
                reason = f"{key}: net {c.net.get('name')} cannot take {what}"
                checks.check_accepts(c.net.get("name"), keyword, reason, self.tables["net"])
        with torch.device(device):
            net: nn.Module = build_part(self.resolved, "net", given, self.tables)
        return net

    @cached_property
    def condition(self) -> Condition | None:
        """The pictures that images are conditioned on; None without."""
        return pictures.build_condition(self.resolved, self.shape, self.tables)

    @cached_property
    def objective(self) -> Objective:
        """The loss."""
        checks.check_variances(self.config, "objective")
        given = {
            "low": self.pixels.low,
            "high": self.pixels.high,
            "gray_levels": self.pixels.levels,
            "levels": self.schedule.levels,
        }
        objective: Objective = build_part(self.resolved, "objective", given, self.tables)
        with mistakes_in("objective"):
            objective.check(self.schedule, math.prod(self.shape))
        return objective

    @cached_property
    def sampler(self) -> Sampler:
        """The sampler of the trained model."""
        return self._build_sampler("sampler")

    @cached_property
    def preview_sampler(self) -> Sampler:
        """The sampler of grids and evaluation during training."""
        return self._build_sampler("preview") if self.config.preview else self.sampler

    @cached_property
    def preview(self) -> Generator:
        """The generation of images during training; the sampler for afterwards is checked, too."""
        _ = self.sampler
        n = max(self.config.samples.n, self.config.evaluation.n)
        return self.generator(n=n, section="preview")

    def generator(
        self, batch_size: int | None = None, label: str | None = None, n: int = 1, section: str = "sampler"
    ) -> Generator:
        """The generation of n images.

        Args:
            batch_size: images sampled at once; evaluation.batch_size when None.
            label: class of all images, its name or number; i modulo the number of classes when None.
            n: images that must fit into memory.
            section: sampler, or preview, whose name messages give.
        """
        number = checks.find_label(self.config, label, self.classes if label is not None else None)
        try:
            check_bytes(n * math.prod(self.shape), f"{n} images")
        except MemoryError as error:
            raise UserError(f"{section}: {error}") from error
        c, size = self.config, batch_size or self.config.evaluation.batch_size
        sampler = self.sampler if section == "sampler" else self.preview_sampler
        pictures.check_guidance(c, self.condition)
        by_labels, by_pictures, by_guide = (
            checks.guidance_strength(c, weight, sampler, self.schedule)
            for weight in (c.labels.guidance, getattr(self.condition, "guidance", 0.0), c.guidance)
        )
        return Generator(
            sampler, self.shape, self.pixels, size, number, by_labels,
            picture_guidance=by_pictures, guide=self.guide, autoguidance=by_guide,
        )  # fmt: skip

    def conditions(self, images: ImageSet) -> Conditions | None:
        """What is observed of images, for a model that is conditioned on pictures."""
        return None if self.condition is None else of_images(self.condition, images, self.pixels)

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes by number, their numbers where they have none; None of a model without labels."""
        n = self.config.labels.classes
        if n is None:
            return None
        names = self._class_names()
        return tuple(names) if names is not None and len(names) == n else tuple(map(str, range(n)))

    def _build_sampler(self, section: str) -> Sampler:
        checks.check_variances(self.config, section)
        given = {"pixels": (self.pixels.low, self.pixels.high)}
        sampler: Sampler = build_part(self.resolved, section, given, self.tables)
        checks.check_evaluations(section, sampler, self.schedule)
        return sampler

    @cached_property
    def listed(self) -> Split:
        """Training and validation images as they are stored, pictures not yet decoded."""
        given: dict[str, object] = {} if self.config.points else {"shape": shapes.picture_shape(self.config.images)}
        paired = self.condition if self.config.data.get("name") == "pairs" else None
        if paired is not None:
            given["condition_channels"] = paired.shown_channels(self.shape[0])
        split: Split = self._split or build_part(self.resolved, "data", given, self.tables)
        checks.check_data(self.config, self.shape, split, self.training)
        if paired is not None:
            pictures.check_pictures(self.config, paired, split, self.shape)
        return split

    @cached_property
    def split(self) -> Split:
        """Training and validation images, decoded; the same where none are held out."""
        return decode_split(*self.listed, local_processes(self.config.trainer.devices))
