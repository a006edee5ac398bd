"""Feature networks: what they return, what they refuse, and that nothing is loaded which is not what it should be."""

import hashlib
import pickle
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from support import GOLDEN
from torch import nn
from torch.testing import assert_close

from score_lightning.data.images import ImageSet
from score_lightning.errors import UserError
from score_lightning.evaluation.features import auto, extractors, weights
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.features.dinov2 import DINOv2


def test_any_module_makes_features():
    features = Features("mine", nn.Sequential(nn.Flatten(), Halved()))
    images = torch.randint(0, 256, (70, 3, 4, 4)).byte()
    vectors, logits = features(images)  # more than one pass
    assert torch.equal(vectors, images.flatten(1) / 2)
    assert logits is None
    probe = features.probe((3, 4, 4))
    assert probe.origin.tolist() == [64.0] * 48
    assert probe.classes is None
    assert features.settings() == {"features": "mine", "features_sha256": None}


class Halved(nn.Module):
    def forward(self, x):
        return x / 2


class Returns(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, images):
        return self.make(images.float())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x, r"must return features \(B, D\).*\(2, 3, 4, 4\) for 2 images: pool or flatten"),
        (lambda x: x.mean((1, 2, 3)), r"must return features \(B, D\)"),
        (lambda x: x.flatten(), r"must return features \(B, D\)"),
        (lambda x: x.flatten(1).long(), "floating-point"),
        (lambda x: (x.flatten(1), x), r"must return class logits \(B, K\)"),
        (lambda x: x.flatten(1) / 0, "are not finite for a gray image"),
        (lambda x: x @ torch.zeros(7, 7), r"cannot take images of shape \(3, 4, 4\) with pixels of 8 bits"),
    ],
)
def test_networks_that_make_no_features_are_refused(make, message):
    with pytest.raises(UserError, match=f"features mine .*{message}"):
        Features("mine", Returns(make)).probe((3, 4, 4))


def test_random_features_are_a_seeded_inception():
    one, same, other = extractors.random(), extractors.random(), extractors.random(seed=1)
    assert one.sha256 == same.sha256 != other.sha256
    images = torch.randint(0, 256, (3, 1, 8, 8)).byte()
    features, logits = one(images)
    assert features.shape == (3, 2048)
    assert logits.shape == (3, 1008)
    assert torch.equal(features, same(images)[0])
    assert torch.equal(features, one(images.expand(-1, 3, -1, -1))[0])  # gray is color
    assert 0.01 < features.std(0).mean() < 10


def test_random_takes_any_weights_and_inception_the_published_ones_only(inception_weights):
    features = extractors.random(weights=str(inception_weights))
    assert features.sha256 == hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    assert features.name == "random"
    with pytest.raises(UserError, match="not the published file of weights: its SHA-256 is"):
        extractors.inception(weights=str(inception_weights))


def test_inception_loads_its_file_after_its_hash(inception_weights, monkeypatch):
    """The real loading code on a file in the true format, whose hash is taken for the published one."""
    monkeypatch.setattr(extractors, "INCEPTION_SHA256", hashlib.sha256(inception_weights.read_bytes()).hexdigest())
    cached = Path(torch.hub.get_dir()) / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    cached.parent.mkdir(parents=True, exist_ok=True)
    cached.write_bytes(inception_weights.read_bytes())
    try:
        features = extractors.inception()  # as torch-fidelity keeps it
        images = torch.randint(0, 256, (2, 3, 32, 32)).byte()
        same = extractors.random(weights=str(inception_weights))
        assert torch.equal(features(images)[0], same(images)[0])
        assert features.name == "inception"
        cached.write_bytes(b"damaged")
        with pytest.raises(UserError, match="Remove it to download it anew"):
            extractors.inception()
    finally:
        cached.unlink()


@pytest.mark.slow
def test_vgg_and_clip_and_dinov2_load_files_in_their_true_format(tmp_path, monkeypatch):
    import torchvision
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA

    vgg = torchvision.models.vgg16()
    torch.save(vgg.state_dict(), tmp_path / "vgg.pth")
    monkeypatch.setattr(extractors, "VGG16_SHA256", weights.file_sha256(tmp_path / "vgg.pth"))
    features = extractors.vgg16(weights=str(tmp_path / "vgg.pth"))
    assert features.name == "vgg16"
    probe = features.probe((3, 8, 8))
    assert len(probe.origin) == 4096
    assert probe.classes is None
    (tmp_path / "vgg.pth").unlink()

    script(tmp_path / "clip.pt")
    monkeypatch.setitem(MODEL_METADATA["clip-vit-b-32"], "hash", weights.file_sha256(tmp_path / "clip.pt"))
    features = extractors.clip(weights=str(tmp_path / "clip.pt"))
    assert len(features.probe((1, 8, 8)).origin) == 32
    assert features.settings()["resize"].startswith("bilinear to 64 x 64 pixels")

    torch.save(dinov2_state(), tmp_path / "dino.pth")
    monkeypatch.setitem(extractors.DINOV2, "vit-s-14", ("dinov2_vits14", weights.file_sha256(tmp_path / "dino.pth")))
    features = extractors.dinov2("vit-s-14", weights=str(tmp_path / "dino.pth"))
    assert features.name == "dinov2-vit-s-14"
    assert len(features.probe((3, 8, 8)).origin) == 128
    for make, models in ((extractors.clip, "rn50, rn101"), (extractors.dinov2, "vit-s-14, vit-b-14")):
        with pytest.raises(UserError, match=f"features.model='huge'.*{models}"):
            make("huge")


def clip_module():
    """CLIP as OpenAI publishes it, small: the visual tower and what belongs to the text."""
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = CLIPVisual(32, 64, 2, 64, 32).visual
            self.text_projection = nn.Parameter(torch.randn(16, 32))
            self.logit_scale = nn.Parameter(torch.ones([]))
            self.register_buffer("context_length", torch.tensor(77))

        def forward(self, x):
            return self.visual(x) @ self.text_projection.T

    return Whole().eval()


def script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(clip_module(), torch.randn(1, 3, 64, 64), check_trace=False)
        traced.save(str(path))
    return traced.state_dict()


def test_torchscript_is_read_without_being_run(tmp_path, monkeypatch):
    state = script(tmp_path / "clip.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    read = weights.read_weights(tmp_path / "clip.pt")
    assert read.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(read[name], value), name


def dinov2_state():
    golden = np.load(GOLDEN / "dinov2.npz")

    def fill(name, shape):
        n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
        if len(shape) > 1:
            return n / np.sqrt(np.prod(shape[1:]))
        return 1 + 0.1 * n if name.endswith("weight") else 0.1 * n

    shapes = {str(n): [int(i) for i in s.split(",")] for n, s in zip(golden["names"], golden["shapes"], strict=True)}
    return {name: torch.from_numpy(fill(name, shape)).float() for name, shape in shapes.items()}


def test_dinov2_equals_the_published_implementation():
    golden = np.load(GOLDEN / "dinov2.npz")
    with torch.no_grad():
        token = DINOv2(dinov2_state())(torch.from_numpy(golden["x"]))
    assert_close(token, torch.from_numpy(golden["y"]), rtol=1e-5, atol=1e-5)


def test_files_with_code_are_refused_and_nothing_runs(tmp_path):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"weights": Code()}, tmp_path / "bad.pth")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Code()))
        archive.writestr("x/constants.pkl", b"")
    for name in ("bad.pth", "script.pt"):
        with pytest.raises(UserError, match="is not a file of plain weights"):
            extractors.random(weights=str(tmp_path / name))
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold the weights of this network"):
        extractors.random(weights=str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="cannot be read"):
        extractors.random(weights=str(tmp_path / "none.pth"))


def test_no_network_is_answered_with_where_the_weights_belong(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    makers = [extractors.inception, extractors.vgg16, extractors.clip, extractors.dinov2]
    for make in makers:
        with pytest.raises(UserError, match=r"cannot be downloaded \(no network\).*features.weights=FILE, or take"):
            make()


def test_classifier_learns_the_digits_and_is_read_from_its_cache(digits, monkeypatch):
    first = extractors.classifier(lambda: digits)
    assert first.settings()["classifier_accuracy"] > 0.95
    monkeypatch.setattr("score_lightning.evaluation.features.classifier._fit", None)  # fitting again would fail
    second = extractors.classifier(lambda: digits)
    images = digits[1].images[:20]
    for a, b in zip(first(images), second(images), strict=True):
        assert torch.equal(a, b)
    assert first.sha256 == second.sha256
    assert first(images)[0].shape == (20, 128)


def test_a_damaged_cache_is_fitted_again(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path))
    monkeypatch.setattr("score_lightning.evaluation.features.classifier.STEPS", 5)
    extractors.classifier(lambda: digits)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    extractors.classifier(lambda: digits)
    assert torch.load(file, weights_only=True)["weights"]


def test_auto_takes_inception_then_the_classifier_and_says_so(digits, monkeypatch, capsys):
    def refused(*_):
        raise UserError("no weights")

    monkeypatch.setattr(extractors, "inception", refused)
    bare = ImageSet(digits[0].images)
    with pytest.raises(UserError, match="needs labels"):
        extractors.classifier(lambda: (bare, bare))
    with pytest.raises(UserError, match="no weights"):
        auto.auto(lambda: (bare, bare))
    assert auto.auto(lambda: digits).name == "classifier"
    assert "a classifier of the data's own labels: no weights" in capsys.readouterr().out
    monkeypatch.setattr(extractors, "inception", lambda: "inception")
    assert auto.auto(None) == "inception"
