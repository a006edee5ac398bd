"""Feature networks by name.

`inception` is TensorFlow's network, with which published numbers are computed; it and CLIP, DINOv2 and VGG are
torch-fidelity's, with its resizing. `classifier` is fitted to the labels of the data set itself, to compare runs on
data unlike Inception's. `pixels` are the images. `random` is an untrained Inception. Each is a function from its
settings to `Features`.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.data.images import ImageSet
from score_lightning.errors import UserError
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.features.classifier import fit_classifier
from score_lightning.evaluation.features.dinov2 import DINOv2
from score_lightning.evaluation.features.weights import file_sha256, first_line, published, read_weights
from score_lightning.runtime.files import cache_folder, sha256_of_state
from score_lightning.runtime.randomness import derive_seed

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
VGG16_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
DINOV2 = {  # of the files at dl.fbaipublicfiles.com
    "vit-s-14": ("dinov2_vits14", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    "vit-b-14": ("dinov2_vitb14", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "vit-l-14": ("dinov2_vitl14", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of red, green, blue
Resizing = Literal["bilinear", "bicubic"]
Split = Callable[[], tuple[ImageSet, ImageSet]]
RESIZE = "bilinear to {0} x {0} pixels as in TensorFlow 1, by torch-fidelity"
INCEPTION_LAYERS = ["2048", "logits_unbiased"]


class Bicubic(nn.Module):
    """Resizes images of 8 bits by Keys' cubic kernel (a = -1/2) with antialiasing, and normalizes them for CLIP.

    Args:
        size: of the side of what is returned.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def forward(self, images: Tensor) -> Tensor:
        """uint8 images (B, 3, H, W) -> (B, 3, size, size)."""
        size = (self._size, self._size)
        pixels = F.interpolate(images.float() / 255, size, mode="bicubic", align_corners=False, antialias=True)
        mean, std = (pixels.new_tensor(numbers).view(3, 1, 1) for numbers in (CLIP_MEAN, CLIP_STD))
        return (pixels - mean) / std


class ColorInput(nn.Module):
    """Lets one of torch-fidelity's extractors, which take color images of 8 bits only, take gray ones as well."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> tuple[Tensor, ...] | Tensor:
        """The extractor's outputs for uint8 images (B, 1 or 3, H, W); the output itself where there is only one."""
        if images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            raise ValueError(
                "it is of images of 8 bits, in gray or in color; take features=classifier for images with labels, "
                "features=pixels, or a network of your own"
            )
        outputs = self.extractor(images.expand(-1, 3, -1, -1))
        return outputs if len(outputs) > 1 else outputs[0]


def inception(weights: str | None = None) -> Features:
    """The 2048 features and 1008 logits of TensorFlow's Inception v3 of 2015-12-05.

    Args:
        weights: torch-fidelity's published file; torch's cache, then a download, when None.

    Raises:
        UserError: when the weights cannot be had, or are not the published ones.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = published(URL_INCEPTION_V3, INCEPTION_SHA256, weights)
    network = _loaded(lambda file: FeatureExtractorInceptionV3("inception", INCEPTION_LAYERS, file), path)
    return Features("inception", ColorInput(network), INCEPTION_SHA256, resize=RESIZE.format(299))


def random(weights: str | None = None, seed: int = 0) -> Features:
    """The same network with random weights, or with those of any file; its numbers compare to no published ones.

    Args:
        weights: a state dict of torch-fidelity's network.
        seed: of the random weights, He-normal.

    Raises:
        UserError: when the file does not hold such weights.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if weights is not None:
        path = Path(weights).expanduser()
        sha256 = file_sha256(path)
        network = _loaded(lambda file: FeatureExtractorInceptionV3("random", INCEPTION_LAYERS, file), path)
    else:
        network = _untrained_inception(seed)
        sha256 = sha256_of_state(network.state_dict())
    return Features("random", ColorInput(network), sha256, resize=RESIZE.format(299))


def vgg16(weights: str | None = None) -> Features:
    """The 4096 features of VGG-16's second hidden layer, with torchvision's ImageNet weights; no class logits.

    Raises:
        UserError: when the weights cannot be had, or are not the published ones.
    """
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
    from torchvision.models import VGG16_Weights

    path = published(VGG16_Weights.IMAGENET1K_V1.url, VGG16_SHA256, weights)
    network = _loaded(lambda file: FeatureExtractorVGG16("vgg16", ["fc2_relu"], file), path)
    return Features("vgg16", ColorInput(network), VGG16_SHA256, resize=RESIZE.format(224))


def clip(model: str = "vit-b-32", weights: str | None = None, resize: Resizing = "bilinear") -> Features:
    """The image embedding of CLIP (Radford et al. 2021), with OpenAI's weights.

    Args:
        model: rn50, rn101, rn50x4, rn50x16, rn50x64, vit-b-32, vit-b-16, vit-l-14 or vit-l-14-336px.
        weights: OpenAI's file; torch's cache, then a download, when None.
        resize: bilinear, as torch-fidelity does it, or bicubic with antialiasing, as CMMD does.

    Raises:
        UserError: when there is no such model or resizing, or its weights cannot be had or are not the published ones.
    """
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP, build_model

    name = f"clip-{model}"
    if name not in MODEL_URLS:
        raise UserError(f"features.model={model!r}: CLIP has {', '.join(n.removeprefix('clip-') for n in MODEL_URLS)}")
    if resize not in get_args(Resizing):
        raise UserError(f"features.resize must be {' or '.join(get_args(Resizing))}, got {resize!r}")
    sha256 = MODEL_METADATA[name]["hash"]
    path = published(MODEL_URLS[name], sha256, weights, f"{name}-{sha256}.pt")
    network = _built(lambda: build_model(read_weights(path), torch.float32), path)  # without running TorchScript
    resolution = network.visual.input_resolution
    extractor = _extractor(FeatureExtractorCLIP, name, "clip", network, resolution=resolution)
    if resize == "bilinear":
        return Features(name, ColorInput(extractor), sha256, resize=RESIZE.format(resolution))
    resized = ColorInput(nn.Sequential(Bicubic(resolution), network.visual))
    described = f"bicubic to {resolution} x {resolution} pixels, with antialiasing"
    return Features(f"{name}-bicubic", resized, sha256, resize=described)


def dinov2(model: str = "vit-b-14", weights: str | None = None) -> Features:
    """The class token of DINOv2 (Oquab et al. 2023), with Meta's weights.

    Args:
        model: vit-s-14, vit-b-14 or vit-l-14.
        weights: Meta's file; torch's cache, then a download, when None.

    Raises:
        UserError: when there is no such model, or its weights cannot be had or are not the published ones.
    """
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    if model not in DINOV2:
        raise UserError(f"features.model={model!r}: DINOv2 has {', '.join(DINOV2)}")
    name, sha256 = DINOV2[model]
    path = published(f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth", sha256, weights)
    network = _built(lambda: DINOv2(read_weights(path)), path)  # torch-fidelity's would run code from the internet
    extractor = _extractor(FeatureExtractorDinoV2, f"dinov2-{model}", "dinov2", network)
    return Features(f"dinov2-{model}", ColorInput(extractor), sha256, resize=RESIZE.format(224))


def classifier(split: Split) -> Features:
    """A small classifier fitted to the labels of the training images, once; then kept in the cache folder.

    Args:
        split: reads the training and validation images.

    Raises:
        UserError: when there are no images, or they have no labels.
    """
    train, validation = split()
    if train.labels is None or validation.labels is None:
        raise UserError("features=classifier needs labels (class folders, or `labels` in the npz)")
    network, accuracy = fit_classifier(train, validation, cache_folder())
    resize = "averaged to 32 x 32 pixels where larger"
    return Features(
        "classifier", network, sha256_of_state(network.state_dict()), resize=resize, classifier_accuracy=accuracy
    )


def _extractor(kind: Any, name: str, feature: str, network: nn.Module, **attributes: Any) -> nn.Module:
    """One of torch-fidelity's extractors, with its resizing, on a network that was built here."""
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    extractor: nn.Module = kind.__new__(kind)
    FeatureExtractorBase.__init__(extractor, name, [feature])
    for key, value in {"feature_extractor_internal_dtype": torch.float32, "model": network, **attributes}.items():
        setattr(extractor, key, value)
    return extractor


def _loaded(build: Callable[[Any], nn.Module], path: Path) -> nn.Module:
    """One of torch-fidelity's extractors, given weights that were read here without running code."""
    file = _saved(read_weights(path))
    return _built(lambda: build(file), path)


def _saved(state: dict[str, Tensor]) -> io.BytesIO:
    """A state dict as the file that torch-fidelity's extractors want to read."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def _built(build: Callable[[], Any], path: Path) -> Any:
    try:
        return build()
    except (RuntimeError, AttributeError, TypeError, KeyError, LookupError, ValueError) as error:
        raise UserError(f"{path} does not hold the weights of this network: {first_line(error)}") from error


def _untrained_inception(seed: int) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        """The network as it is constructed, without weights from a file."""

        def load_state_dict(self, *_: Any, **__: Any) -> Any:
            """Does nothing."""

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("random inception", seed))
        network = Unloaded("random", INCEPTION_LAYERS, _saved({}))
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network
