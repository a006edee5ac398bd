"""From a configuration to an evaluation: its reference, its feature network and its metrics."""

from dataclasses import replace
from pathlib import Path

from score_lightning import images, sources
from score_lightning.build import TABLES, build_images, build_part, build_pixels
from score_lightning.config import Resolved
from score_lightning.errors import UserError
from score_lightning.evaluation.evaluate import Evaluator
from score_lightning.evaluation.features import Features
from score_lightning.evaluation.metrics import MetricSettings
from score_lightning.evaluation.reference import Reference, holds_statistics, read_statistics
from score_lightning.evaluation.weights import file_sha256
from score_lightning.images import ImageSet, LazyImageSet, Shape
from score_lightning.models import ScoreModel
from score_lightning.sources import Split
from score_lightning.training import ValidationLoss


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
        return ImageSet(*images.read_npz(place))
    names = images.list_pictures(place)
    files = images.ImageFiles(place, names, shape or images.shape_of(place, names))
    return LazyImageSet(files, images.class_labels(names))


def build_reference(resolved: Resolved, given: str | None) -> tuple[Reference, Split | None]:
    """What images are compared with, and (training, validation) images for features that are fitted to them.

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
            c = replace(c, data={**{k: v for k, v in c.data.items() if k == "path"}, "name": given})
        split = build_images(replace(resolved, config=c))
        return Reference(str(c.data["name"]), *split), split
    path = Path(given).expanduser()
    if path.suffix == ".npz" and path.is_file() and holds_statistics(path):
        return Reference(given, statistics=read_statistics(path), sha256=file_sha256(path)), None
    shape = Shape(c.images.size, c.images.channels)
    compared = read_images(given, shape)
    if compared.shape != (shape.channels, shape.size, shape.size):
        raise UserError(
            f"{given} holds images of shape {compared.shape}; expected {(shape.channels, shape.size, shape.size)}"
        )
    return Reference(given, compared), sources.hold_out(compared, 0.05) if len(compared) > 1 else None


def build_features(resolved: Resolved, split: Split | None) -> Features:
    """The feature network.

    Args:
        resolved: the configuration.
        split: (training, validation) images, which some networks are fitted to; read where they are needed and None.

    Raises:
        UserError: when the network cannot be had.
    """
    c = resolved.config
    if split is None and c.features.get("name") in ("auto", "classifier"):
        if not c.data:
            raise UserError(f"features={c.features['name']} needs images; take features=inception with this reference")
        split = build_images(resolved)
    return build_part(resolved, "features", {"split": split})


def build_evaluator(resolved: Resolved, features: Features, reference: Reference, n: int, device: object) -> Evaluator:
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
    shape = (c.images.channels, c.images.size, c.images.size)
    evaluator = Evaluator(features, reference, shape, settings, device)  # type: ignore[arg-type]
    evaluator.check(n)
    return evaluator


def build_validation(
    resolved: Resolved, model: ScoreModel, split: Split | None
) -> tuple[ValidationLoss, ImageSet] | None:
    """Training's validation loss and images; None where the data that a model was trained on are not here.

    Args:
        resolved: the configuration.
        model: whose schedule the noise levels are of.
        split: the training and validation images, where they were read already.
    """
    c = resolved.config
    try:
        _, held_out = split or build_images(resolved)
    except UserError:
        return None
    objective = build_part(resolved, "objective", {})
    return ValidationLoss(objective, model, build_pixels(c), c.validation.levels, c.seed), held_out
