"""A small convolutional classifier of a data set's labels, as a source of features."""

import hashlib
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import EIGHT_BITS, Depth
from score_lightning.errors import UserError
from score_lightning.runtime.files import atomic_file
from score_lightning.runtime.randomness import derive_seed, generator

STEPS, PASSES, BATCH, LR = 600, 24, 128, 4e-3  # at most that many steps and passes over the images
VERSION = 3  # part of the cache's key; increase it with every change of the network or its training


class Classifier(nn.Module):
    """Three convolutions, two of which halve the resolution, 2 x 2 pooling, and 128 features before the last layer.

    Images larger than 32 x 32 pixels are averaged to that size first.
    """

    dim = 128

    def __init__(self, channels: int, classes: int, depth: Depth = EIGHT_BITS) -> None:
        super().__init__()
        self.classes, self.depth = classes, depth
        self.convs = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.hidden = nn.Linear(512, self.dim)
        self.head = nn.Linear(self.dim, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(features (B, 128), logits (B, classes)) of images (B, C, H, W) of its depth."""
        half = (self.depth.white - self.depth.black) / 2
        x = images.contiguous(memory_format=torch.channels_last).float()
        x = (x if self.depth.black == 0 else x - self.depth.black) / half - 1
        x = F.adaptive_avg_pool2d(x, 32) if min(x.shape[2:]) > 32 else x
        features = F.relu(self.hidden(self.convs(x)))
        return features, self.head(features)


def fit_classifier(train: ImageSet, validation: ImageSet, cache: Path) -> tuple[Classifier, float]:
    """(classifier, its accuracy on the validation images), fitted to the labels or read from the cache.

    The fit is a function of images and labels alone, so that every rank has the same.
    """
    assert train.labels is not None
    network = _initial(train.shape[0], int(train.labels.max()) + 1, train.depth)
    path = cache / f"classifier-{_content_key(train)}.pt"
    accuracy = _read(network, path)
    if accuracy is None:
        _fit(network, train)
        accuracy = _accuracy(network, validation)
        _write(network, accuracy, path)
    return network.eval().requires_grad_(False), accuracy


def _initial(channels: int, classes: int, depth: Depth) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("classifier"))
        return Classifier(channels, classes, depth).to(memory_format=torch.channels_last)


@torch.enable_grad()
def _fit(network: Classifier, train: ImageSet) -> None:
    assert train.labels is not None
    steps = min(STEPS, -(-PASSES * len(train) // BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps)
    order = generator("classifier", "batches")
    with torch.inference_mode(False):
        for _ in tqdm(range(steps), "fitting the classifier of evaluation.features", leave=False, disable=None):
            batch = torch.randint(len(train), (BATCH,), generator=order)
            loss = F.cross_entropy(network(train[batch])[1], train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _accuracy(network: Classifier, validation: ImageSet) -> float:
    assert validation.labels is not None
    numbers = torch.arange(min(len(validation), 10_000)).split(500)
    correct = [(network(validation[i])[1].argmax(1) == validation.labels[i]).float() for i in numbers]
    return torch.cat(correct).mean().item()


def _content_key(images: ImageSet) -> str:
    """Hash of the images that the classifier is fitted to, their labels and how it is fitted."""
    assert images.labels is not None
    digest = hashlib.sha256(f"{VERSION} {STEPS} {PASSES} {BATCH} {LR} {images.sha256}".encode())
    digest.update(images.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def _read(network: Classifier, path: Path) -> float | None:
    """The cached accuracy, after loading the cached weights; None where there is no valid file."""
    try:
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["weights"])
        return float(state["accuracy"])
    except (OSError, EOFError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError):
        return None


def _write(network: Classifier, accuracy: float, path: Path) -> None:
    try:
        with atomic_file(path) as file:
            torch.save({"weights": network.state_dict(), "accuracy": accuracy}, file)
    except OSError as error:
        raise UserError(
            f"the fitted classifier cannot be kept at {path}: {error}. Set SCORE_LIGHTNING_CACHE"
        ) from error
