"""Statistics of reference images: computed once, kept, and never those of something else."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from score_lightning import config
from score_lightning.data.files import ImageFiles
from score_lightning.data.images import ImageSet, LazyImageSet
from score_lightning.data.listing import list_pictures
from score_lightning.data.pictures import Shape
from score_lightning.errors import UserError
from score_lightning.evaluation import reference
from score_lightning.evaluation.features.base import Features
from score_lightning.evaluation.reference import holds_statistics, read_statistics, reference_statistics
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.evaluation import Evaluation, read_images
from score_lightning.runtime.processes import Rank


class Pixels(nn.Module):
    def forward(self, images):
        return images.flatten(1).float() / 255


@pytest.fixture
def images():
    return ImageSet(torch.randint(0, 256, (300, 1, 3, 3)).byte())


def compute(images, cache, keep=True, sha256="network", **settings):
    return reference_statistics(Features("pixels", Pixels(), sha256, **settings), images, keep, Rank(), cache)


def test_statistics_equal_numpys(images, tmp_path):
    statistics = compute(images, tmp_path)
    rows = images.images.flatten(1).double().numpy() / 255
    assert_close(statistics.mean, torch.from_numpy(rows.mean(0)), rtol=1e-6, atol=0)
    assert_close(statistics.cov, torch.from_numpy(np.cov(rows, rowvar=False)), rtol=1e-5, atol=1e-9)
    assert_close(statistics.features, torch.from_numpy(rows).float())


def test_statistics_are_computed_once(images, tmp_path, monkeypatch):
    first = compute(images, tmp_path)
    monkeypatch.setattr(reference, "collect", None)  # computing again would fail
    for keep in (True, False):
        again = compute(images, tmp_path, keep)
        assert torch.equal(again.mean, first.mean)
        assert torch.equal(again.cov, first.cov)
    assert again.features is None


def counted(monkeypatch):
    calls, collect = [], reference.collect
    monkeypatch.setattr(reference, "collect", lambda *args: calls.append(1) or collect(*args))
    return calls


def test_other_images_networks_and_resizes_have_other_statistics(images, tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    compute(images, tmp_path)
    other = images.images.clone()
    other[0, 0, 0, 0] ^= 1
    compute(ImageSet(other), tmp_path)
    compute(images, tmp_path, sha256="other")
    compute(images, tmp_path, resize="other")
    assert len(calls) == 4
    assert len(list(tmp_path.iterdir())) == 4
    compute(images, tmp_path, sha256=None)  # a network without a name is never cached
    compute(images, tmp_path, sha256=None)
    assert len(calls) == 6
    assert len(list(tmp_path.iterdir())) == 4


def test_moments_alone_do_not_serve_where_features_are_needed(images, tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    assert compute(images, tmp_path, keep=False).features is None
    assert len(compute(images, tmp_path, keep=True).features) == 300
    assert len(calls) == 2
    compute(images, tmp_path, keep=False)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "foreign"])
def test_damaged_and_foreign_caches_are_rebuilt(images, tmp_path, monkeypatch, damage):
    first = compute(images, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-50])
    elif damage == "flip":
        place = content.index(first.cov.numpy().tobytes()[:32])
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    elif damage in ("empty", "text"):
        path.write_bytes(b"" if damage == "empty" else b"hello")
    else:
        np.savez(path, key="another", mu=np.zeros(9), sigma=np.eye(9), features=np.zeros((2, 9)))
    calls = counted(monkeypatch)
    again = compute(images, tmp_path)
    assert len(calls) == 1
    assert torch.equal(again.cov, first.cov)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_are_hashed_by_their_files(pictures):
    names = list_pictures(pictures).names
    make = lambda size: LazyImageSet(ImageFiles(pictures, names, Shape(size, 3)))  # noqa: E731
    before = make(8).sha256
    assert make(8).sha256 == before != make(9).sha256
    assert make(8).subset(torch.tensor([1, 0])).sha256 != make(8).subset(torch.tensor([0, 1])).sha256
    (pictures / names[0]).write_bytes((pictures / names[1]).read_bytes())
    assert make(8).sha256 != before


def test_statistics_files_are_read_and_damaged_ones_refused(tmp_path):
    mu, sigma = np.arange(3.0), np.eye(3, dtype=np.float32)
    np.savez(tmp_path / "good.npz", mu=mu, sigma=sigma)
    statistics = read_statistics(tmp_path / "good.npz")
    assert statistics.mean.tolist() == [0, 1, 2]
    assert statistics.cov.dtype == torch.float64
    assert holds_statistics(tmp_path / "good.npz")
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 8, 8), np.uint8))
    assert not holds_statistics(tmp_path / "images.npz")
    np.savez(tmp_path / "shapes.npz", mu=mu, sigma=np.eye(4))
    np.savez(tmp_path / "nan.npz", mu=mu * np.nan, sigma=sigma)
    np.savez(tmp_path / "objects.npz", mu=np.array([None]), sigma=sigma)
    np.savez(tmp_path / "indefinite.npz", mu=mu, sigma=np.eye(3) + 2 * np.eye(3)[::-1])
    (tmp_path / "text.npz").write_text("hello")
    for name, message in {
        "shapes": "must be",
        "nan": "all finite",
        "objects": "of numbers alone",
        "indefinite": "not a covariance",
        "text": "of numbers alone, or damaged",
        "images": "expected mu and sigma, got images",
    }.items():
        with pytest.raises(UserError, match=f"{name}.npz.*{message}"):
            read_statistics(tmp_path / f"{name}.npz")
    with pytest.raises(UserError, match=r"not a \.npz file"):
        holds_statistics(tmp_path / "text.npz")


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_statistics_are_read_in_either_byte_order_and_of_torch_fidelitys_files(kind, order, tmp_path):
    sigma = np.eye(3)
    sigma[0, 1] = sigma[1, 0] = 0.5
    arrays = {"mu": np.arange(3).astype(order + kind), "sigma": sigma.astype(order + kind)}
    np.savez(tmp_path / "a.npz", **arrays)
    torch.save(arrays, tmp_path / "b.pt")  # torch-fidelity keeps NumPy's arrays
    torch.save({name: torch.from_numpy(array.astype("=" + kind)) for name, array in arrays.items()}, tmp_path / "c.pt")
    for name in ("a.npz", "b.pt", "c.pt"):
        assert holds_statistics(tmp_path / name)
        statistics = read_statistics(tmp_path / name)
        assert statistics.mean.tolist() == [0, 1, 2]
        assert statistics.cov.tolist() == sigma.tolist()


COLORS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def saved(name, path):
    """The same six images in a file, of the kinds that other programs write."""
    labels = np.arange(6) % 3
    if name == "guided.npz":  # samples of guided-diffusion
        np.savez(path, COLORS, labels)
    elif name == "virtual.npz":  # its reference batches
        np.savez(path, arr_0=COLORS, mu=np.zeros(3), sigma=np.eye(3), mu_s=np.zeros(3), sigma_s=np.eye(3))
    elif name == "big_endian.npz":
        np.savez(path, images=COLORS, labels=labels.astype(">i8"))
    elif name == "other.npz":
        np.savez(path, COLORS, np.zeros(6))
    elif name == "array.npy":
        np.save(path, COLORS)
    elif name == "tensor.pt":
        torch.save(torch.from_numpy(COLORS).permute(0, 3, 1, 2), path)
    elif name == "named.pt":
        torch.save({"images": torch.from_numpy(COLORS), "labels": torch.from_numpy(labels), "made": "today"}, path)


@pytest.mark.parametrize(
    "name",
    ["guided.npz", "virtual.npz", "big_endian.npz", "other.npz", "array.npy", "tensor.pt", "named.pt"],
)
def test_images_are_read_from_the_files_that_other_programs_write(name, tmp_path):
    saved(name, tmp_path / name)
    images = read_images(str(tmp_path / name))
    assert torch.equal(images[:], torch.from_numpy(COLORS).permute(0, 3, 1, 2))
    labeled = name in ("guided.npz", "big_endian.npz", "named.pt")
    assert (images.labels.tolist() if labeled else images.labels) == ([0, 1, 2, 0, 1, 2] if labeled else None)
    reference = Evaluation(
        Experiment(config.load(["images.channels=3"], "ddpm_digits")), str(tmp_path / name)
    ).reference
    assert (reference.images is None) == (name == "virtual.npz")  # whose statistics are of more images


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("code in the file was run",)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.pkl", pickle.dumps({"mu": Harmful()}), "numpy.savez('statistics.npz', mu=s['mu'], sigma=s['sigma'])"),
        ("a.npy", pickle.dumps({"mu": Harmful()}), "is not a .npy file of numbers alone, or damaged"),
        ("a.pt", pickle.dumps({"mu": Harmful()}), "is not a .pt file of numbers alone, or damaged"),
        ("a.h5", b"hello", "expected a folder or a .zip file of pictures, or images in a .npz, .npy or .pt file"),
        ("a.npz", {"x": COLORS}, "expected an array `images` or arr_0, got x"),
        ("a.npz", {"images": COLORS / 255}, "got float64 (6, 8, 8, 3): save them as float32"),
        ("a.npz", None, "expected a .npz, .npy or .pt file of images or statistics"),
    ],
)
def test_what_is_no_file_of_images_or_statistics_is_told_what_is(name, contents, message, tmp_path):
    path = tmp_path / name
    if isinstance(contents, dict):
        np.savez(path, **contents)
    elif contents:
        path.write_bytes(contents)
    for read in (read_images, lambda path: Evaluation(Experiment(config.load([], "ddpm_digits")), path).reference):
        with pytest.raises(UserError) as error:
            read(str(path))
        assert message in str(error.value)
