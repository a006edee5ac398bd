"""Feature networks by name.

`inception` is TensorFlow's network of the published numbers; it and CLIP, DINOv2 and VGG are torch-fidelity's, with its
resizing. `classifier` is fitted to the labels of the data set itself: it compares runs on data that Inception knows
nothing of. `random` is an untrained Inception. Each is a function from its settings to `Features`.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP
from torch_fidelity.feature_extractor_clip import build_model as build_clip
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
from torchvision.models import VGG16_Weights

from score_lightning.data.images import ImageSet
from score_lightning.errors import UserError
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.features.classifier import fit_classifier
from score_lightning.evaluation.features.dinov2 import DINOv2
from score_lightning.evaluation.features.weights import file_sha256, published, read_weights
from score_lightning.runtime.files import cache_folder, sha256_of_state
from score_lightning.runtime.randomness import derive_seed

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
VGG16_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
DINOV2 = {  # of the files at dl.fbaipublicfiles.com
    "vit-s-14": ("dinov2_vits14", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    "vit-b-14": ("dinov2_vitb14", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "vit-l-14": ("dinov2_vitl14", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
}
Split = Callable[[], tuple[ImageSet, ImageSet]]
RESIZE = "bilinear to {0} x {0} pixels as in TensorFlow 1, by torch-fidelity"
INCEPTION_LAYERS = ["2048", "logits_unbiased"]


class Colored(nn.Module):
    """One of torch-fidelity's extractors, which take color images only, for grey ones too."""

    def __init__(self, extractor: FeatureExtractorBase) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> tuple[Tensor, ...] | Tensor:
        """What the extractor returns for uint8 images (B, 1 or 3, H, W)."""
        found = self.extractor(images.expand(-1, 3, -1, -1))
        return found if len(found) > 1 else found[0]


def inception(weights: str | None = None) -> Features:
    """The 2048 features and 1008 logits of TensorFlow's Inception v3 of 2015-12-05.

    Args:
        weights: torch-fidelity's published file; torch's cache, then a download, when None.

    Raises:
        UserError: when there are no weights, or they are not the published ones.
    """
    path = published(URL_INCEPTION_V3, INCEPTION_SHA256, weights)
    network = _loaded(lambda file: FeatureExtractorInceptionV3("inception", INCEPTION_LAYERS, file), path)
    return Features("inception", Colored(network), INCEPTION_SHA256, resize=RESIZE.format(299))


def random(weights: str | None = None, seed: int = 0) -> Features:
    """The same network with random weights, or with those of any file: its numbers compare with nothing published.

    Args:
        weights: a state dict of torch-fidelity's network.
        seed: of the random weights, He-normal.

    Raises:
        UserError: when the file does not hold such weights.
    """
    if weights is not None:
        path = Path(weights).expanduser()
        sha256 = file_sha256(path)
        network = _loaded(lambda file: FeatureExtractorInceptionV3("random", INCEPTION_LAYERS, file), path)
    else:
        network = _untrained_inception(seed)
        sha256 = sha256_of_state(network.state_dict())
    return Features("random", Colored(network), sha256, resize=RESIZE.format(299))


def vgg16(weights: str | None = None) -> Features:
    """The 4096 features of VGG-16's second hidden layer, torchvision's weights of ImageNet; no class logits.

    Raises:
        UserError: when there are no weights, or they are not the published ones.
    """
    path = published(VGG16_Weights.IMAGENET1K_V1.url, VGG16_SHA256, weights)
    network = _loaded(lambda file: FeatureExtractorVGG16("vgg16", ["fc2_relu"], file), path)
    return Features("vgg16", Colored(network), VGG16_SHA256, resize=RESIZE.format(224))


class _CLIP(FeatureExtractorCLIP):
    """torch-fidelity's extractor on weights that were read without TorchScript, which it would run."""

    def __init__(self, name: str, state: dict[str, Tensor]) -> None:
        FeatureExtractorBase.__init__(self, name, ["clip"])
        self.feature_extractor_internal_dtype = torch.float32
        self.model = build_clip(state, torch.float32)
        self.resolution = self.model.visual.input_resolution


def clip(model: str = "vit-b-32", weights: str | None = None) -> Features:
    """The image embedding of CLIP (Radford et al. 2021), OpenAI's weights.

    Args:
        model: rn50, rn101, rn50x4, rn50x16, rn50x64, vit-b-32, vit-b-16, vit-l-14 or vit-l-14-336px.
        weights: OpenAI's file; torch's cache, then a download, when None.

    Raises:
        UserError: when there is no such model, or no weights, or they are not the published ones.
    """
    name = f"clip-{model}"
    if name not in MODEL_URLS:
        raise UserError(f"features.model={model!r}: CLIP has {', '.join(n.removeprefix('clip-') for n in MODEL_URLS)}")
    sha256 = MODEL_METADATA[name]["hash"]
    path = published(MODEL_URLS[name], sha256, weights, f"{name}-{sha256}.pt")
    network = _built(lambda: _CLIP(name, read_weights(path)), path)
    return Features(name, Colored(network), sha256, resize=RESIZE.format(network.resolution))


class _DINOv2(FeatureExtractorDinoV2):
    """torch-fidelity's extractor on a network of our own: its way to one runs code from the internet."""

    def __init__(self, name: str, state: dict[str, Tensor]) -> None:
        FeatureExtractorBase.__init__(self, name, ["dinov2"])
        self.feature_extractor_internal_dtype = torch.float32
        self.model = DINOv2(state)


def dinov2(model: str = "vit-b-14", weights: str | None = None) -> Features:
    """The class token of DINOv2 (Oquab et al. 2023), Meta's weights.

    Args:
        model: vit-s-14, vit-b-14 or vit-l-14.
        weights: Meta's file; torch's cache, then a download, when None.

    Raises:
        UserError: when there is no such model, or no weights, or they are not the published ones.
    """
    if model not in DINOV2:
        raise UserError(f"features.model={model!r}: DINOv2 has {', '.join(DINOV2)}")
    name, sha256 = DINOV2[model]
    path = published(f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth", sha256, weights)
    network = _built(lambda: _DINOv2(f"dinov2-{model}", read_weights(path)), path)
    return Features(f"dinov2-{model}", Colored(network), sha256, resize=RESIZE.format(224))


def classifier(split: Split) -> Features:
    """A small classifier fitted to the labels of the training images, once; kept in the cache folder.

    Args:
        split: reads the training and validation images.

    Raises:
        UserError: when there are none, or they have no labels.
    """
    train, validation = split()
    if train.labels is None or validation.labels is None:
        raise UserError("features=classifier needs labels (class folders, or `labels` in the npz)")
    network, accuracy = fit_classifier(train, validation, cache_folder())
    resize = "averaged to 32 x 32 pixels where larger"
    return Features(
        "classifier", network, sha256_of_state(network.state_dict()), resize=resize, classifier_accuracy=accuracy
    )


def auto(split: Split) -> Features:
    """Inception if its weights can be had, else the classifier if the data have labels; says which.

    Raises:
        UserError: when neither can be had.
    """
    try:
        return inception()
    except UserError as error:
        try:
            found = classifier(split)
        except UserError:
            raise error from None
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"Evaluation uses the features of a classifier of the data's own labels: {error}")
        return found


def _loaded(build: Callable[[Any], nn.Module], path: Path) -> nn.Module:
    """An extractor of torch-fidelity's, which reads its weights from what was read here without running code."""
    file = io.BytesIO()
    torch.save(read_weights(path), file)
    file.seek(0)
    return _built(lambda: build(file), path)


def _built(build: Callable[[], Any], path: Path) -> Any:
    try:
        return build()
    except (RuntimeError, AttributeError, TypeError, KeyError, LookupError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} does not hold the weights of this network: {reason}") from error


class _Unloaded(FeatureExtractorInceptionV3):
    """The network as it is built, before weights."""

    def load_state_dict(self, *_: Any, **__: Any) -> Any:
        """Leaves them."""


def _untrained_inception(seed: int) -> nn.Module:
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("random inception", seed))
        network = _Unloaded("random", INCEPTION_LAYERS, nothing)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network
