"""One pass, many metrics: against torch-fidelity, with what is missing, in flat memory."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from score_lightning.data.images import ImageSet
from score_lightning.errors import UserError
from score_lightning.evaluation.evaluator import Evaluator, batches_of
from score_lightning.evaluation.features import extractors
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.metrics import METRICS, MetricSettings, Statistics
from score_lightning.evaluation.reference import Reference
from score_lightning.runtime.processes import Rank

SHAPE = (1, 8, 8)


def batches(images, size=64):
    return list(batches_of(ImageSet(images), len(images), size))


def test_metrics_of_real_images_are_good_and_of_noise_bad(digits):
    train, validation = digits
    evaluator = Evaluator(
        extractors.classifier(lambda: digits), Reference("digits", train, validation), SHAPE, MetricSettings(splits=1)
    )
    result = evaluator(batches(train.images), Rank(), shown=70)
    same = result.metrics
    assert same["fid_classifier"] == pytest.approx(0, abs=1e-9)
    assert same["is_classifier"] > 9
    assert same["precision_classifier"] == same["recall_classifier"] == same["coverage_classifier"] == 1
    assert same["memorization_classifier"] == pytest.approx(1)
    assert torch.equal(result.shown, train.images[:70])
    assert result.neighbors[:, 0].tolist() == list(range(70))
    noise = evaluator(batches(torch.randint(0, 256, (300, 1, 8, 8)).byte()), Rank()).metrics
    assert noise["fid_classifier"] > 10
    assert abs(same["kid_classifier"]) < 0.01 * noise["kid_classifier"]
    assert noise["is_classifier"] < same["is_classifier"]
    assert noise["precision_classifier"] < 0.5
    assert noise["coverage_classifier"] < 0.5
    assert noise["memorization_classifier"] < 0.1
    names = {"fid", "is", "is_std", "kid", "kid_std", "precision", "recall", "f_score", "density", "coverage"}
    assert set(same) == {f"{name}_classifier" for name in names | {"memorization", "fid_infinity"}}
    unseen = evaluator(batches(validation.images), Rank()).metrics
    assert unseen["memorization_classifier"] == pytest.approx(0.5, abs=1e-9)


@pytest.mark.slow
def test_metrics_equal_torch_fidelitys_on_the_same_pictures_and_weights(inception_weights, tmp_path):
    import torch_fidelity

    rng = np.random.default_rng(0)
    waves = (
        np.sin(np.arange(32) * rng.uniform(0.1, 1, (40, 3, 1, 1)))[..., None, :].repeat(32, -2).reshape(40, 3, 32, 32)
    )
    pictures = (128 + 100 * waves + rng.normal(0, 20, waves.shape)).clip(0, 255).astype(np.uint8)
    pictures[20:] //= 2
    images = [torch.from_numpy(part) for part in (pictures[:20], pictures[20:])]
    for name, part in zip("ab", images, strict=True):
        (tmp_path / name).mkdir()
        for i, image in enumerate(part):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:03d}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "a"), input2=str(tmp_path / "b"), fid=True, isc=True, kid=True, prc=True, cuda=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(inception_weights), cache=False,
        kid_subset_size=15, kid_subsets=10, batch_size=20, save_cpu_ram=True, verbose=False,
    )  # fmt: skip
    settings = MetricSettings(kid_subset_size=15, kid_subsets=10)
    features = extractors.random(weights=str(inception_weights))
    evaluator = Evaluator(features, Reference("b", ImageSet(images[1])), (3, 32, 32), settings)
    ours = evaluator(batches(images[0], 15), Rank()).metrics
    keys = {
        "is": "inception_score_mean", "is_std": "inception_score_std", "precision": "precision", "recall": "recall",
        "f_score": "f_score", "kid": "kernel_inception_distance_mean", "kid_std": "kernel_inception_distance_std",
    }  # fmt: skip
    for name, key in keys.items():
        rel = 1e-5 if name.startswith("kid") else 1e-6  # theirs in float32, which test_metrics.py leaves out
        assert ours[f"{name}_random"] == pytest.approx(theirs[key], rel=rel), name
    assert ours["fid_random"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert list(evaluator.unavailable) == ["memorization_random"]


class Pixels(nn.Module):
    def forward(self, images):
        return images.flatten(1).float() / 255


def reals(n=50):
    return torch.randint(0, 256, (n, *SHAPE)).byte()


def make(reference=None, names=tuple(METRICS), network=None):
    reference = reference or Reference("real", ImageSet(reals()), ImageSet(reals(20)))
    return Evaluator(Features("pixels", network or Pixels()), reference, SHAPE, MetricSettings(tuple(names)))


def test_what_a_network_or_a_reference_lacks_is_reported_not_guessed():
    no_classes = make()
    assert no_classes.unavailable == {
        "is_pixels": "the features pixels have no class probabilities",
        "cmmd_pixels": "it is defined for CLIP's embedding: features=cmmd",
    }
    statistics = make(Reference("file", statistics=Statistics(torch.zeros(64), torch.eye(64)), sha256="x"))
    assert set(statistics.unavailable) == {
        "is_pixels", "cmmd_pixels", "kid_pixels", "precision_recall_pixels", "density_coverage_pixels",
        "memorization_pixels",
    }  # fmt: skip
    result = statistics(batches(reals()), Rank(), shown=5)
    assert set(result.metrics) == {"fid_pixels", "fid_infinity_pixels"}
    low, high = result.values.intervals["fid_pixels"]
    assert low < result.metrics["fid_pixels"] < high
    assert result.neighbors is None
    settings = statistics.settings(50)
    assert settings["reference_sha256"] == "x"
    assert settings["reference_images"] is None


@pytest.mark.parametrize(
    ("n", "real", "names", "message"),
    [
        (1, 50, ["fid"], "fid needs at least 2 images"),
        (3, 50, ["fid", "precision_recall"], r"precision_recall needs at least 4 images .* evaluation.metrics=\[fid\]"),
        (50, 3, ["precision_recall", "fid"], "4 of the reference, got 50 and 3"),
        (50, 5, ["density_coverage"], "6 of the reference"),
    ],
)
def test_too_few_images_are_refused_before_any_work(n, real, names, message):
    evaluator = make(Reference("real", ImageSet(reals(real)), ImageSet(reals(5))), names)
    with pytest.raises(UserError, match=message):
        evaluator.check(n)
    evaluator = make(Reference("real", ImageSet(reals(6)), ImageSet(reals(5))))
    evaluator.check(4)
    evaluator(batches(reals(4)), Rank())  # what passes the check can be computed


def test_unknown_metrics_and_other_networks_statistics_are_refused():
    with pytest.raises(UserError, match="must name some of fid, is, kid"):
        make(names=["fid", "swd"])
    with pytest.raises(UserError, match="must name some of"):
        make(names=[])
    with pytest.raises(UserError, match="file has statistics of 3 features, pixels has 64"):
        make(Reference("file", statistics=Statistics(torch.zeros(3), torch.eye(3))))


def test_images_that_are_not_finite_are_counted_and_refused():
    bad = batches(reals(10), 4)
    bad[1].finite[2:] = False
    with pytest.raises(UserError, match="2 of 10 images have pixels that are not finite"):
        make()(bad, Rank())


def test_features_that_are_not_finite_are_refused():
    class Sometimes(nn.Module):
        def forward(self, images):
            return images.flatten(1).float() / (images[:, :, 0, 0].float() - 7)

    images = reals(10)
    images[:, 0, 0, 0] = 9
    images[3, 0, 0, 0] = 7
    evaluator = make(network=Sometimes(), names=["fid"], reference=Reference("real", ImageSet(images[4:])))
    with pytest.raises(UserError, match="features pixels of some images are not finite"):
        evaluator(batches(images), Rank())


def test_statistics_of_the_reference_are_computed_once(monkeypatch):
    evaluator = make()
    first = evaluator(batches(reals(30)), Rank()).metrics
    monkeypatch.setattr("score_lightning.evaluation.evaluator.reference_statistics", None)
    assert set(evaluator(batches(reals(30)), Rank()).metrics) == set(first)
