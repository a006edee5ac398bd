"""CMMD against its published formula, and its resizing against Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

from score_lightning import config
from score_lightning.errors import UserError
from score_lightning.evaluation.features import extractors
from score_lightning.evaluation.intervals import Subsamples
from score_lightning.evaluation.kernel import clip_distance


def test_clip_distance_is_the_published_formula():
    """1000 (E k(x, x') + E k(y, y') - 2 E k(x, y)) over all pairs of unit vectors, k = exp(-|x - y|^2 / (2 10^2))."""
    x, y = torch.randn(30, 8), torch.randn(20, 8) + 1
    unit_x, unit_y = (z / z.norm(dim=1, keepdim=True) for z in (x, y))
    kernel = lambda p, q: torch.exp(-(p - q).double().square().sum() / 200).item()  # noqa: E731
    k = lambda a, b: sum(kernel(p, q) for p in a for q in b) / (len(a) * len(b))  # noqa: E731
    expected = 1000 * (k(unit_x, unit_x) + k(unit_y, unit_y) - 2 * k(unit_x, unit_y))
    ours = clip_distance(x, y, Subsamples.of(30))
    assert ours.tolist() == pytest.approx([expected], rel=1e-6)


def test_clip_distance_does_not_depend_on_the_length_of_embeddings_or_on_blocks(monkeypatch):
    x, y = torch.randn(50, 8), torch.randn(20, 8) + 1
    whole = clip_distance(x, y, Subsamples.of(50))
    monkeypatch.setattr("score_lightning.evaluation.kernel.PAIRS", 100)
    scaled = clip_distance(3 * x, y * torch.rand(20, 1), Subsamples.of(50))
    torch.testing.assert_close(scaled, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [24, 200])
def test_images_are_resized_as_pillow_does_with_its_bicubic_kernel(side):
    images = torch.randint(256, (2, 3, side, side), dtype=torch.uint8)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (extractors.CLIP_MEAN, extractors.CLIP_STD))
    ours = extractors.Bicubic(48)(images) * std + mean
    for image, channels in zip(images, ours, strict=True):
        for channel, resized in zip(image, channels, strict=True):
            floats = Image.fromarray(channel.numpy().astype(np.float32) / 255)
            theirs = np.asarray(floats.resize((48, 48), Image.Resampling.BICUBIC))
            np.testing.assert_allclose(resized.numpy(), theirs, atol=1e-4)


def test_features_cmmd_are_those_of_the_paper():
    part = config.load(["features=cmmd"], "ddpm_digits").config.features
    assert part == {"name": "clip", "model": "vit-l-14-336px", "resize": "bicubic", "weights": None}
    with pytest.raises(UserError, match=r"features.resize must be bilinear or bicubic, got 'nearest'"):
        extractors.clip(resize="nearest")
