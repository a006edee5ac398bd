"""Feature networks: uint8 images -> (features, class logits).

`inception` is TensorFlow's network of the published numbers, through torch-fidelity. `classifier` is a small network
fitted to the labels of the data set itself: it compares runs on data that Inception knows nothing of, and its metrics
carry its name.
"""

import os
import socket
from pathlib import Path
from typing import Protocol
from urllib.error import URLError

import torch
from torch import Tensor

from score_lightning.errors import UserError
from score_lightning.evaluation.classifier import fit_classifier
from score_lightning.images import ImageSet


class Features(Protocol):
    """What metrics are computed on."""

    name: str
    dim: int
    classes: int

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(features (B, dim), logits (B, classes)) of uint8 images (B, C, H, W)."""


class InceptionFeatures:
    """The 2048 features and 1008 logits of TensorFlow's Inception v3 of 2015-12-05, by torch-fidelity.

    Args:
        weights: file of the weights as torch-fidelity publishes them; torch's cache, then a download, when None.

    Raises:
        UserError: when there are no weights, or the file is not what it should be.
    """

    name, dim, classes = "inception", 2048, 1008

    def __init__(self, weights: str | None = None, device: torch.device | str = "cpu") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = Path(weights).expanduser() if weights else _published_inception()
        _refuse_code(path)
        try:
            network = FeatureExtractorInceptionV3(self.name, ["2048", "logits_unbiased"], str(path))
        except (RuntimeError, AttributeError, TypeError) as error:
            raise UserError(f"{path} does not hold torch-fidelity's Inception weights: {error}") from error
        self._network = network.to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(features (B, 2048), logits (B, 1008)) of uint8 images (B, 1 or 3, H, W), on their device."""
        features, logits = self._network.to(images.device)(images.expand(-1, 3, -1, -1))
        return features, logits


class ClassifierFeatures:
    """A small classifier fitted to the labels of the training images, once; kept in the cache folder.

    Raises:
        UserError: when the data have no labels.
    """

    name = "classifier"

    def __init__(self, train: ImageSet, validation: ImageSet) -> None:
        if train.labels is None or validation.labels is None:
            raise UserError("evaluation.features=classifier needs labels (class folders, or `labels` in the npz)")
        self._network, self.accuracy = fit_classifier(train, validation, cache_folder())
        self.dim, self.classes = self._network.dim, self._network.classes

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(features (B, dim), logits (B, classes)) of uint8 images (B, C, H, W), on their device."""
        return self._network.to(images.device)(images)


def choose_features(name: str, weights: str | None, train: ImageSet, validation: ImageSet) -> Features:
    """The feature network of that name.

    `auto` takes Inception if its weights can be had, else the classifier if the data have labels, and says which.

    Raises:
        UserError: when the network cannot be had.
    """
    if name == "inception":
        return InceptionFeatures(weights)
    if name == "classifier":
        return ClassifierFeatures(train, validation)
    if name != "auto":
        raise UserError(f"unknown evaluation.features {name!r}; choose one of auto, inception, classifier")
    try:
        return InceptionFeatures(weights)
    except UserError as error:
        if weights is not None or train.labels is None:
            raise  # a file that was asked for, or no other way
        print(f"Evaluation uses the features of a classifier of the data's own labels: {error}")
        return ClassifierFeatures(train, validation)


def cache_folder() -> Path:
    """Where fitted networks are kept: $SCORE_LIGHTNING_CACHE, else score_lightning in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "score_lightning"
    return Path(os.environ.get("SCORE_LIGHTNING_CACHE", default))


def _published_inception() -> Path:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)
    try:
        # the end of the file's name begins its SHA-256, as torch.hub has it
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), path.stem.rsplit("-", 1)[1])
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"the Inception weights cannot be downloaded ({error}). Put {path.name}, from torch-fidelity's release "
            f"v0.2.0, at {path}, give evaluation.weights=FILE, or take evaluation.features=classifier"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def _refuse_code(path: Path) -> None:
    """Raises a UserError unless the file holds nothing but tensors: torch-fidelity would run code in it."""
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist (evaluation.weights)") from error
    except Exception as error:  # whatever a file that is none of PyTorch's makes its reader raise
        raise UserError(f"{path} is no file of plain weights, or damaged: {error}") from error
