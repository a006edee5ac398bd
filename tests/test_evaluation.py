"""Metrics against closed forms and against torch-fidelity."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from score_lightning import sources
from score_lightning.errors import UserError
from score_lightning.evaluation import frechet_distance
from score_lightning.evaluation.evaluate import Evaluator, Rank
from score_lightning.evaluation.features import ClassifierFeatures, InceptionFeatures, choose_features
from score_lightning.evaluation.metrics import InceptionScore, Moments
from score_lightning.evaluation.report import save_grid, write_metrics, write_report
from score_lightning.images import ImageSet, Shape


def test_frechet_distance_of_known_gaussians():
    zero, eye = torch.zeros(64), torch.eye(64)
    assert frechet_distance(zero, eye, zero, 4 * eye) == pytest.approx(64, rel=1e-12)
    mean = torch.randn(64)
    assert frechet_distance(mean, eye, zero, eye) == pytest.approx(mean.double().square().sum().item(), rel=1e-9)


def test_frechet_distance_of_commuting_covariances_is_that_of_their_roots():
    q, _ = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))
    a, b = torch.rand(20, dtype=torch.float64), torch.rand(20, dtype=torch.float64)
    a[:5] = 0  # singular
    exact = (a.sqrt() - b.sqrt()).square().sum().item()
    zero = torch.zeros(20)
    assert frechet_distance(zero, q @ a.diag() @ q.T, zero, q @ b.diag() @ q.T) == pytest.approx(exact, rel=1e-7)


def test_frechet_distance_equals_torch_fidelity():
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    x, y = np.random.default_rng(0).standard_normal((2, 500, 30)) @ np.diag(np.linspace(0.1, 2, 30))
    moments = [(z.mean(0), np.cov(z, rowvar=False)) for z in (x, y + 0.3)]
    theirs = fid_statistics_to_metric(*({"mu": m, "sigma": c} for m, c in moments), False)
    ours = frechet_distance(*moments[0], *moments[1])
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)


def test_frechet_distance_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match=r"means must be \(D,\)"):
        frechet_distance(torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(torch.zeros(2), torch.eye(2) * torch.nan, torch.zeros(2), torch.eye(2))


def test_moments_equal_numpys_in_any_batches():
    features = np.random.default_rng(0).standard_normal((101, 7)).astype(np.float32) + 100
    moments = Moments(7)
    for part in torch.from_numpy(features).split(13):
        moments.update(part)
    mean, cov = moments.compute()
    assert_close(mean, torch.from_numpy(features.astype(float).mean(0)), rtol=1e-12, atol=0)
    assert_close(cov, torch.from_numpy(np.cov(features.astype(float), rowvar=False)), rtol=1e-8, atol=1e-8)


def test_inception_score_of_balanced_certain_classes_is_their_number():
    logits = 100 * torch.eye(7).repeat(20, 1)
    score = InceptionScore(7, splits=1)
    order = torch.randperm(140)
    for part in order.split(33):
        score.update(logits[part], part)
    assert score.compute() == pytest.approx((7, 0))


def test_inception_score_does_not_depend_on_the_order_of_batches_and_is_torch_fidelitys():
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.randn(200, 5)
    forward, backward = InceptionScore(5, 10), InceptionScore(5, 10)
    parts = torch.arange(200).split(30)
    for a, b in zip(parts, reversed(parts), strict=True):
        forward.update(logits[a], a)
        backward.update(logits[b], b)
    theirs = isc_features_to_metric(logits)
    assert (
        forward.compute()
        == backward.compute()
        == (
            theirs["inception_score_mean"],
            theirs["inception_score_std"],
        )
    )


@pytest.fixture(scope="module")
def digits():
    return sources.digits(Shape(8, 1))


def test_classifier_learns_the_digits_and_is_read_from_its_cache(digits, monkeypatch):
    first = ClassifierFeatures(*digits)
    assert first.accuracy > 0.95
    monkeypatch.setattr("score_lightning.evaluation.classifier._fit", None)  # fitting again would fail
    second = ClassifierFeatures(*digits)
    images = digits[1].images[:20]
    for a, b in zip(first(images), second(images), strict=True):
        assert torch.equal(a, b)
    assert first(images)[0].shape == (20, first.dim)


def test_a_damaged_cache_is_fitted_again(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path))
    monkeypatch.setattr("score_lightning.evaluation.classifier.STEPS", 5)
    ClassifierFeatures(*digits)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    ClassifierFeatures(*digits)
    assert torch.load(file, weights_only=True)["weights"]


def test_evaluation_of_real_images_is_good_and_of_noise_bad(digits):
    train, validation = digits
    evaluator = Evaluator(ClassifierFeatures(train, validation), train, splits=1)
    batches = lambda images: [(i, images[i]) for i in torch.arange(len(images)).split(64)]  # noqa: E731
    same = evaluator(batches(train.images), Rank())
    assert same["fid_classifier"] == pytest.approx(0, abs=1e-4)
    assert same["is_classifier"] > 9
    noise = evaluator(batches(torch.randint(0, 256, (300, 1, 8, 8)).byte()), Rank())
    assert noise["fid_classifier"] > 10
    assert noise["is_classifier"] < same["is_classifier"]
    assert set(same) == {"fid_classifier", "is_classifier", "is_std_classifier"}


def test_images_without_labels_and_without_inception_have_no_features(digits, monkeypatch):
    def refused(*_):
        raise UserError("no weights")

    monkeypatch.setattr("score_lightning.evaluation.features._published_inception", refused)
    bare = ImageSet(digits[0].images)
    with pytest.raises(UserError, match="needs labels"):
        choose_features("classifier", None, bare, bare)
    with pytest.raises(UserError, match="no weights"):
        choose_features("auto", None, bare, bare)
    assert choose_features("auto", None, *digits).name == "classifier"
    with pytest.raises(UserError, match="choose one of auto, inception, classifier"):
        choose_features("resnet", None, *digits)


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory):
    """Random weights in the format that torch-fidelity publishes."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            return None

    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({}, path)
    torch.manual_seed(0)
    network = Unloaded("x", ["2048"], str(path))
    torch.save(
        network.state_dict(), path, _use_new_zipfile_serialization=False
    )  # the published file is of the old kind
    return path


def test_inception_metrics_equal_torch_fidelity(inception_weights, tmp_path):
    import torch_fidelity

    images = [torch.randint(0, 256, (30, 3, 32, 32)).byte() // (i + 1) for i in range(2)]
    for name, part in zip("ab", images, strict=True):
        (tmp_path / name).mkdir()
        for i, image in enumerate(part):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:03d}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "a"), input2=str(tmp_path / "b"), fid=True, isc=True, cuda=False, verbose=False,
        feature_extractor_weights_path=str(inception_weights), cache=False, batch_size=30, save_cpu_ram=True,
    )  # fmt: skip
    evaluator = Evaluator(InceptionFeatures(str(inception_weights)), ImageSet(images[1]), splits=10)
    ours = evaluator([(torch.arange(30), images[0])], Rank())
    assert ours["is_inception"] == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert ours["fid_inception"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)


def test_files_with_code_are_refused_and_nothing_runs(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weights": Code()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="no file of plain weights"):
        InceptionFeatures(str(tmp_path / "bad.pth"))
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold torch-fidelity's Inception weights"):
        InceptionFeatures(str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="does not exist"):
        InceptionFeatures(str(tmp_path / "none.pth"))


def test_no_network_is_answered_with_where_the_weights_belong(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(UserError, match=r"cannot be downloaded \(no network\).*evaluation.features=classifier"):
        InceptionFeatures()


def test_grids_hold_every_pixel(tmp_path):
    images = torch.randint(0, 256, (6, 1, 8, 8)).byte()
    picture = np.asarray(Image.open(save_grid(images, tmp_path / "new/grid.png")))
    factor = picture.shape[1] // 28  # 3 columns of 8 pixels with 1 between and around
    assert picture.shape[:2] == (19 * factor, 28 * factor)
    assert picture.shape[1] >= 512
    small = picture[::factor, ::factor]
    assert np.array_equal(small[1:9, 1:9, 0], images[0, 0])
    assert np.array_equal(small[10:18, 19:27, 0], images[5, 0])


def test_reports_hold_metrics_settings_and_pictures(tmp_path):
    save_grid(torch.zeros(4, 1, 8, 8).byte(), tmp_path / "samples.png")
    settings = {"n": 4, "sampler": {"name": "ddim"}, "checkpoint": "<b>.ckpt"}
    written = json.loads(write_metrics(tmp_path, {"fid_classifier": 1.25}, settings).read_text())
    assert written == {"fid_classifier": 1.25, "settings": settings}
    page = write_report(tmp_path, "<b>.ckpt", {"fid_classifier": 1.25}, settings).read_text()
    for part in ("1.2500", "sampler.name", "ddim", "&lt;b&gt;.ckpt", "data:image/png;base64,"):
        assert part in page
    assert "<b>" not in page
