"""Sources in their true formats on disk."""

import gzip
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from score_lightning.data import sources
from score_lightning.data.decoded import decode_split
from score_lightning.data.pictures import Shape
from score_lightning.errors import UserError


def test_digits_are_scikit_learns():
    train, validation = sources.digits(Shape(8, 1))
    assert (len(train), len(validation)) == (1617, 180)
    real = load_digits()
    both = torch.cat([train.images, validation.images]).view(-1, 64).float() / 127.5 - 1
    ours = {tuple((row * 8 + 8).round().int().tolist()) for row in both}
    assert ours == {tuple(row.astype(int)) for row in real.data}
    for image, label in zip(train.images[:50], train.labels[:50], strict=True):
        same = (real.images == np.round(image[0].numpy() / 255 * 16)).all((1, 2))
        assert label in real.target[same]


def test_a_folder_is_decoded_cropped_and_labelled(pictures):
    train, validation = sources.folder(Shape(8, 3), str(pictures), 0)
    assert validation is train
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    images = train.images
    exact = np.asarray(Image.open(pictures / "dog/e.bmp")).transpose(2, 0, 1)
    assert np.array_equal(images[4], exact)
    wide = np.asarray(Image.open(pictures / "cat/a.png"))[:, 2:10].transpose(2, 0, 1)  # 12 x 8: the central square
    assert np.array_equal(images[0], wide)
    gray = np.asarray(Image.open(pictures / "dog/f.png"))
    assert np.array_equal(images[5], np.stack([gray] * 3))


def test_a_zip_holds_the_same_images_as_its_folder(pictures, tmp_path):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for file in pictures.rglob("*"):
            archive.write(file, f"train/{file.relative_to(pictures)}")
    for shape in (Shape(8, 3), Shape(5, 1)):
        (a, b), (c, d) = (
            sources.folder(shape, str(pictures), 0.3),
            sources.folder(shape, str(tmp_path / "pictures.zip"), 0.3),
        )
        assert torch.equal(a.images, c.images)
        assert torch.equal(b.labels, d.labels)
        assert (len(a), len(b)) == (4, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_files_keep_images_and_labels(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (40, 6, 6, channels), dtype=np.uint8)
    stored = images[..., 0] if channels == 1 else images
    np.savez(tmp_path / "x.npz", images=stored, labels=np.arange(40))
    train, validation = sources.npz(Shape(6, channels), str(tmp_path / "x.npz"), 0.25)
    assert (len(train), len(validation)) == (30, 10)
    for part in (train, validation):
        for image, label in zip(part.images, part.labels, strict=True):
            assert np.array_equal(image, images[label].transpose(2, 0, 1))


def mnist_files(root, n=7):
    rng = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    made = {}
    for split, key in (("train", True), ("t10k", False)):
        images, labels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + images.tobytes())
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())
        made[key] = (images, labels)
    return made


def test_mnist_is_read_from_its_own_format(tmp_path):
    made = mnist_files(tmp_path)
    for part, (images, labels) in zip(
        sources.torchvision_source("MNIST")(Shape(28, 1), str(tmp_path)), made.values(), strict=True
    ):
        assert np.array_equal(part.images[:, 0], images)
        assert np.array_equal(part.labels, labels)
    resized, _ = sources.torchvision_source("MNIST")(Shape(32, 3), str(tmp_path))
    assert resized.images.shape == (7, 3, 32, 32)


def test_cifar10_is_read_from_its_own_format(tmp_path, monkeypatch):
    import torchvision.datasets

    # torchvision compares the files with the published hashes, which files made here cannot have
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    rng, root = np.random.default_rng(0), tmp_path / "cifar-10-batches-py"
    root.mkdir()
    batches = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batches[name] = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [1, 2, 3, 4]}
        (root / name).write_bytes(pickle.dumps(batches[name]))
    (root / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    train, test = sources.torchvision_source("CIFAR10")(Shape(32, 3), str(tmp_path))
    assert (len(train), len(test)) == (20, 4)
    assert np.array_equal(train.images[:4], batches["data_batch_1"]["data"].reshape(4, 3, 32, 32))
    assert test.labels.tolist() == [1, 2, 3, 4]


def test_celeba_is_cropped_to_its_central_140_pixels(tmp_path, monkeypatch):
    import torchvision.datasets

    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in range(1, 6)]
    pixels = np.zeros((218, 178, 3), np.uint8)
    pixels[39:179, 19:159] = 200
    for name in names:
        Image.fromarray(pixels).save(root / "img_align_celeba" / name, quality=100)
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {i // 3}\n" for i, n in enumerate(names)))
    (root / "identity_CelebA.txt").write_text("".join(f"{n} 1\n" for n in names))
    (root / "list_attr_celeba.txt").write_text("5\nSmiling\n" + "".join(f"{n} 1\n" for n in names))
    (root / "list_bbox_celeba.txt").write_text("5\nimage_id x_1\n" + "".join(f"{n} 1\n" for n in names))
    (root / "list_landmarks_align_celeba.txt").write_text("5\na\n" + "".join(f"{n} 1\n" for n in names))
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda self: True)
    train, validation = sources.celeba(Shape(32, 3), str(tmp_path))
    assert (len(train), len(validation)) == (3, 2)
    assert train.images.float().mean().item() == pytest.approx(200, abs=3)
    assert train.images.min() > 150  # nothing of the black border


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda p: sources.folder(Shape(8, 3), str(p / "none")), "does not exist: expected a folder"),
        (lambda p: sources.folder(Shape(8, 3), str(p / "text.zip")), "neither a folder nor a zip"),
        (lambda p: sources.folder(Shape(8, 3), str(p / "empty")), "holds no pictures"),
        (lambda p: sources.folder(Shape(8, 3), str(p / "broken")), r"(bad|worse).png cannot be read: not a picture"),
        (lambda p: sources.folder(Shape(8, 3), str(p / "cut")), r"cut2?.png cannot be read"),
        (lambda p: sources.folder(Shape(8, 3), str(p / "one")), "leave images on both sides"),
        (lambda p: sources.npz(Shape(8, 1), str(p / "none.npz")), "does not exist"),
        (lambda p: sources.npz(Shape(8, 1), str(p / "text.zip")), "is not a .npz file"),
        (lambda p: sources.npz(Shape(8, 1), str(p / "float.npz")), "must be uint8"),
        (lambda p: sources.npz(Shape(8, 1), str(p / "other.npz")), "array `images`"),
        (lambda p: sources.npz(Shape(8, 1), str(p / "labels.npz")), "numbers from 0 for the 3 images"),
        (
            lambda p: sources.npz(Shape(9, 1), str(p / "labeled.npz")),
            r"8 x 8 pixels with 1 channels, the network takes 9",
        ),
        (lambda p: sources.folder(Shape(8, 3), str(p / "flipped.zip")), "cannot be read"),
        (lambda p: sources.npz(Shape(8, 1), str(p / "words.npz")), "labels must be numbers"),
        (lambda p: sources.npz(Shape(8, 1), str(p / "code.npz")), "is not a .npz file"),
        (lambda p: sources.torchvision_source("MNIST")(Shape(28, 1), str(p / "nothing")), "data=folder"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_remedy(tmp_path, monkeypatch, source, message):
    import torchvision.datasets.mnist

    def no_network(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", no_network)
    (tmp_path / "text.zip").write_text("text")
    for name in ("empty", "broken", "cut", "one"):
        (tmp_path / name).mkdir()
    for name in ("bad.png", "worse.png"):
        (tmp_path / "broken" / name).write_text("text")
    whole = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(whole).save(tmp_path / "one/a.png")
    for name in ("cut.png", "cut2.png"):
        (tmp_path / "cut" / name).write_bytes((tmp_path / "one/a.png").read_bytes()[:300])
    images = np.zeros((3, 8, 8), np.uint8)
    np.savez(tmp_path / "float.npz", images=images.astype(float))
    np.savez(tmp_path / "other.npz", pictures=images)
    np.savez(tmp_path / "labels.npz", images=images, labels=np.arange(2))
    np.savez(tmp_path / "labeled.npz", images=images, labels=np.arange(3))
    np.savez(tmp_path / "words.npz", images=images, labels=np.array(["a", "b", "c"]))
    with zipfile.ZipFile(tmp_path / "flipped.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(2000))
        archive.writestr("b.png", bytes(2000))
    content = bytearray((tmp_path / "flipped.zip").read_bytes())
    content[36:44] = b"\xff" * 8
    (tmp_path / "flipped.zip").write_bytes(content)
    np.savez(tmp_path / "code.npz", images=np.array([gzip.open], dtype=object))
    with pytest.raises(UserError, match=message):
        decode_split(*source(tmp_path))


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_nothing_is_held_out_where_that_is_asked_for(kind, pictures, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 8, 8, 3), np.uint8))
    path = pictures if kind == "folder" else tmp_path / "x.npz"
    train, validation = getattr(sources, kind)(Shape(8, 3), str(path), 0)
    assert validation is train
    assert len(train) == (6 if kind == "folder" else 3)
    with pytest.raises(UserError, match="0 \\(nothing is held out\\), or below 1"):
        getattr(sources, kind)(Shape(8, 3), str(path), -0.1)


@pytest.mark.parametrize("resize", ["bicubic", "bilinear", "lanczos"])
def test_pictures_are_resized_as_asked_for(resize, tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    noise.save(tmp_path / "a.png")
    noise.save(tmp_path / "b.png")
    train, _ = sources.folder(Shape(8, 3, resize), str(tmp_path), 0)
    expected = np.asarray(noise.resize((8, 8), Image.Resampling[resize.upper()]))
    assert np.array_equal(train.images[0].permute(1, 2, 0).numpy(), expected)
