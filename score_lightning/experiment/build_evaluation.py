"""From a configuration to an evaluation: its reference, its feature network and its metrics."""

from dataclasses import replace
from pathlib import Path

from score_lightning.config import Resolved
from score_lightning.config.registry import TABLES, build_part
from score_lightning.data import sources
from score_lightning.data.files import class_labels, list_pictures, read_npz, shape_of
from score_lightning.data.images import ImageFiles, ImageSet, LazyImageSet, Shape
from score_lightning.data.sources import Split
from score_lightning.errors import UserError
from score_lightning.evaluation.evaluator import Evaluator
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.features.weights import file_sha256
from score_lightning.evaluation.metrics import MetricSettings
from score_lightning.evaluation.model_losses import ValidationLoss
from score_lightning.evaluation.reference import Reference, holds_statistics, read_statistics
from score_lightning.experiment.build import build_images, build_objective, build_pixels
from score_lightning.models import ScoreModel
from score_lightning.perturbation import Variance


def read_images(path: str, shape: Shape | None = None) -> ImageSet:
    """All images of a folder, a zip or an npz; those of the first two are decoded when they are needed.

    Args:
        path: of the folder or the file.
        shape: that pictures are brought to; without it they must all be of the first one's.

    Raises:
        UserError: when they cannot be read, or are of several sizes.
    """
    place = Path(path).expanduser()
    if place.suffix == ".npz":
        return ImageSet(*read_npz(place))
    names = list_pictures(place)
    files = ImageFiles(place, names, shape or shape_of(place, names))
    return LazyImageSet(files, class_labels(names))


def build_reference(resolved: Resolved, given: str | None) -> Reference:
    """What images are compared with.

    Args:
        resolved: the configuration, which has the images' shape and, without a reference, their source.
        given: name of a data set; path of a folder, a zip, or an npz of images or of statistics; None for the
            training images.

    Raises:
        UserError: when it cannot be read, or holds images of another shape.
    """
    c = resolved.config
    if given is None or given in TABLES["data"]:
        if given is not None and given != c.data.get("name"):
            # a path in a checkpoint is that of the data it was trained on
            own = resolved.origins.get("data.path") == "command line"
            c = replace(c, data={**({"path": c.data["path"]} if own else {}), "name": given})
        return Reference(str(c.data["name"]), *build_images(replace(resolved, config=c)))
    path = Path(given).expanduser()
    if path.suffix == ".npz" and path.is_file() and holds_statistics(path):
        return Reference(given, statistics=read_statistics(path), sha256=file_sha256(path))
    shape = Shape(c.images.size, c.images.channels)
    # pictures are brought to a model's shape as its training images are; images that are there are what they are
    compared = read_images(given, shape if c.data.get("name") else None)
    if compared.shape != (shape.channels, shape.size, shape.size):
        raise UserError(
            f"{given} holds images of shape {compared.shape}; expected {(shape.channels, shape.size, shape.size)}, "
            "as those to evaluate: resize one of them"
        )
    return Reference(given, compared)


def build_features(resolved: Resolved, reference: Reference) -> Features:
    """The feature network. One that is fitted to labels takes those of the model's data, else those of the reference.

    Raises:
        UserError: when the network cannot be had.
    """
    own = resolved.config.data.get("name")

    def split() -> Split:
        if reference.images is not None and reference.held_out is not None and reference.name in (own, None):
            return reference.images, reference.held_out
        if own:
            return build_images(resolved)
        if reference.images is None:
            raise UserError("features=classifier needs images with labels, the reference has statistics only")
        if reference.held_out is not None:
            return reference.images, reference.held_out
        return sources.hold_out(reference.images, 0.05)

    return build_part(resolved, "features", {"split": split})


def build_evaluator(resolved: Resolved, features: Features, reference: Reference, n: int) -> Evaluator:
    """The evaluation of n images.

    Raises:
        UserError: when a metric is unknown or n too small for it, or the network does not fit the images.
    """
    c = resolved.config
    e = c.evaluation
    for key, least in (("splits", 1), ("kid_subsets", 1), ("kid_subset_size", 2), ("batch_size", 1)):
        if getattr(e, key) < least:
            raise UserError(f"evaluation.{key} must be at least {least}, got {getattr(e, key)}")
    settings = MetricSettings(tuple(e.metrics), e.splits, e.kid_subsets, e.kid_subset_size)
    evaluator = Evaluator(features, reference, (c.images.channels, c.images.size, c.images.size), settings)
    evaluator.check(n)
    return evaluator


def build_validation(resolved: Resolved, model: ScoreModel) -> ValidationLoss:
    """The loss of training's validation."""
    c = resolved.config
    objective = build_objective(resolved, model.schedule)
    return ValidationLoss(objective, model, build_pixels(c), c.validation.levels, c.seed)


def build_bound_variance(resolved: Resolved) -> Variance:
    """The variance that DDPM's bound is evaluated with: that of an ancestral sampler, else learned or beta."""
    c = resolved.config
    if c.sampler.get("name") == "ancestral" and "variance" in c.sampler:
        return c.sampler["variance"]
    return "learned" if c.net.get("learned_variance") else "large"
