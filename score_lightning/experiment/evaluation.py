"""From an experiment to its evaluation: the reference, the feature network and the metrics."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from zipfile import is_zipfile

from score_lightning.config.registry import build_part
from score_lightning.data import sources
from score_lightning.data.arrays import ARRAYS, depth_of, read_arrays
from score_lightning.data.images import ImageSet
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.data.sources import Split
from score_lightning.errors import UserError
from score_lightning.evaluation.evaluator import Evaluator
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.features.weights import file_sha256
from score_lightning.evaluation.metrics import MetricSettings
from score_lightning.evaluation.model_losses import ValidationLoss
from score_lightning.evaluation.reference import Reference, holds_statistics, read_statistics
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.shapes import picture_shape
from score_lightning.generation.conditions import Conditions
from score_lightning.perturbation import Variance


class NoFeaturesError(UserError):
    """The feature network is not available."""


class Evaluation:
    """The evaluation of images, each object built once.

    Images of a model that is conditioned on pictures are compared with the truths that these were observed of.

    Args:
        experiment: whose configuration has the images' shape and, without a reference, their source.
        given: the reference: name of a data set; path of a folder, a zip, or a file of images or of statistics; the
            training images, or the truths, when None.
        n: images that are evaluated.

    Raises:
        UserError: when the reference cannot be read or holds images of another shape, a metric is unknown, n is too
            small for it, or the network does not fit the images; each when it is first asked for.
    """

    def __init__(self, experiment: Experiment, given: str | None = None, n: int = 2) -> None:
        self._experiment, self._given, self._n = experiment, given, n

    @cached_property
    def _shape(self) -> Shape:
        """Of the images that are evaluated."""
        return picture_shape(self._experiment.config.images)

    @cached_property
    def reference(self) -> Reference:
        """What images are compared with; where pictures are observed of images, those that are held out."""
        reference = self._compared
        if self._experiment.condition is None or reference.held_out is None:
            return reference
        return Reference(f"{reference.name}, held out", reference.held_out)

    @cached_property
    def _compared(self) -> Reference:
        given, resolved, tables = self._given, self._experiment.resolved, self._experiment.tables
        c = resolved.config
        if given is None or given == c.data.get("name"):
            return _reference(str(c.data["name"]), self._experiment.split)
        if given in tables["data"]:
            # the path in a checkpoint is that of the data it was trained on
            overridden = resolved.origins.get("data.path") == "command line"
            data = {**({"path": c.data["path"]} if overridden else {}), "name": given}
            other = Experiment(replace(resolved, config=replace(c, data=data)), parts=self._experiment.parts)
            return _reference(given, other.split)
        path = Path(given).expanduser()
        if path.suffix in ARRAYS and path.is_file() and holds_statistics(path):
            return Reference(given, statistics=read_statistics(path), sha256=file_sha256(path))
        shape = self._shape
        # pictures are brought to a model's shape as its training images are; those to evaluate are taken as they are
        compared = read_images(given, shape if c.data.get("name") else None, shape.background, shape.depth)
        if compared.depth != shape.depth:
            raise UserError(f"{given} has pixels of {compared.depth}, the images to evaluate of {shape.depth}")
        if compared.shape != shape.dimensions:
            remedy = (
                "resize one of them" if compared.shape[1:] != shape.dimensions[1:] else "bring both to gray or to color"
            )
            raise UserError(
                f"{given} holds images of shape {compared.shape}, those to evaluate are of {shape.dimensions}: {remedy}"
            )
        return Reference(given, compared)

    @cached_property
    def conditions(self) -> Conditions | None:
        """What is observed of the truths, for a model that is conditioned on pictures; None for others.

        The truths are the images of the reference. Where that is statistics, or the data are pairs, they are the
        held-out images of the data.
        """
        experiment = self._experiment
        if experiment.condition is None:
            return None
        truths = None if experiment.config.condition["name"] == "pairs" else self.reference.images
        conditions = experiment.conditions(experiment.split[1] if truths is None else truths)
        foreign = truths is not None and self._given not in (None, experiment.config.data.get("name"))
        return replace(conditions, labels=None) if foreign and conditions is not None else conditions

    @property
    def held_out(self) -> ImageSet | None:
        """Images that the model was not trained on, if any are known."""
        return self.reference.held_out if self.conditions is None else self.conditions.truths

    @cached_property
    def features(self) -> Features:
        """The feature network; one that is fitted to labels uses those of the model's data, else of the reference."""
        try:
            given = {"split": self._labeled, "channels": self._shape.channels, "depth": self._shape.depth}
            features: Features = build_part(self._experiment.resolved, "features", given, self._experiment.tables)
        except UserError as error:
            raise NoFeaturesError(str(error)) from error
        return features

    @cached_property
    def evaluator(self) -> Evaluator:
        """The evaluation of n images."""
        c = self._experiment.config
        e = c.evaluation
        settings = MetricSettings(tuple(e.metrics), e.splits, e.kid_subsets, e.kid_subset_size)
        reference, features = self.reference, self.features  # what was given is checked before weights are loaded
        evaluator = Evaluator(features, reference, self._shape.dimensions, settings, depth=self._shape.depth)
        evaluator.check(self._n)
        return evaluator

    @cached_property
    def validation(self) -> ValidationLoss:
        """The loss of training's validation."""
        x, c = self._experiment, self._experiment.config
        return ValidationLoss(x.objective, x.model, x.pixels, c.validation.levels, c.seed, x.condition)

    @property
    def bound_variance(self) -> Variance:
        """The variance that DDPM's bound is evaluated with: that of an ancestral sampler, else learned or beta."""
        c = self._experiment.config
        if c.sampler.get("name") == "ancestral" and "variance" in c.sampler:
            variance: Variance = c.sampler["variance"]
            return variance
        return "learned" if c.net.get("learned_variance") else "large"

    def _labeled(self) -> Split:
        """Images with labels, for a network that is fitted to them."""
        name, reference = self._experiment.config.data.get("name"), self.reference
        if reference.images is not None and reference.held_out is not None and reference.name in (name, None):
            return reference.images, reference.held_out
        if name:
            images, validation = self._experiment.split
            return sources.hold_out(images, 0.05) if validation is images else (images, validation)
        if reference.images is None:
            raise UserError("features=classifier needs images with labels, the reference has statistics only")
        if reference.held_out is not None:
            return reference.images, reference.held_out
        return sources.hold_out(reference.images, 0.05)


def _reference(name: str, split: Split) -> Reference:
    """A data set as reference; none of its images are known as held out where training uses all."""
    images, validation = split
    return Reference(name, images, None if validation is images else validation)


def read_images(
    path: str, shape: Shape | None = None, background: str = "white", depth: Depth | None = None
) -> ImageSet:
    """All images of a folder, a zip or a file of arrays; those of the first two are decoded when they are needed.

    Args:
        path: of the folder or the file.
        shape: that pictures are brought to; without it they must all be of the first one's.
        background: color that transparent ones are then composited on.
        depth: how pixels are stored; that of the arrays, and 8 bits of pictures, when None.

    Raises:
        UserError: when they cannot be read, or are of several sizes or another depth.
    """
    place = Path(path).expanduser()
    if place.suffix in ARRAYS and not place.is_dir():
        images, labels = read_arrays(place, None if shape is None else shape.dimensions)
        return ImageSet(images, labels, depth=depth_of(place, images, depth))
    if place.is_file() and place.suffix != ".zip" and not is_zipfile(place):
        raise UserError(
            f"{place} cannot be read: expected a folder or a .zip file of pictures, or images in a .npz, .npy or .pt "
            "file; a reference may also be a .npz or .pt file of statistics (mu, sigma)"
        )
    return sources.read_pictures(place, shape, background, depth or EIGHT_BITS)
