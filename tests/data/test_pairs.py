"""Images that come with pictures to condition on."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from support import fails, run

from score_lightning import checkpoint, train
from score_lightning.data.decoded import decode_split
from score_lightning.data.files import ImageFiles
from score_lightning.data.images import PairedImages
from score_lightning.data.module import Batches
from score_lightning.data.pairs import pairs
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import PixelRange
from score_lightning.errors import UserError
from score_lightning.objectives import Denoising

NAMES = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(5)]


def write(root, names, size=(8, 8), channels=3, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(root / name)
    return root


@pytest.fixture
def folders(tmp_path):
    return write(tmp_path / "images", NAMES), write(tmp_path / "edges", NAMES, channels=1, seed=1)


def stored(root, name, mode):
    return torch.from_numpy(np.array(Image.open(root / name).convert(mode))).view(8, 8, -1).permute(2, 0, 1)


@pytest.mark.parametrize("zipped", [False, True])
def test_pairs_are_told_by_their_names(folders, tmp_path, zipped):
    roots = list(folders)
    if zipped:
        for i, root in enumerate(folders):
            roots[i] = tmp_path / f"{root.name}.zip"
            with zipfile.ZipFile(roots[i], "w") as archive:
                for name in reversed(NAMES):
                    archive.write(root / name, f"{root.name}/{name}")
    train, held = decode_split(*pairs(Shape(8, 3), 1, str(roots[0]), str(roots[1]), 0.3))
    assert (len(train), len(held)) == (7, 3)
    assert (train.shape, train.conditions.shape) == ((3, 8, 8), (1, 8, 8))
    assert train.source.classes == ("cat", "dog")
    trained = {}
    for part in (train, held):
        for image, picture, label in zip(part[:], part.conditions[:], part.labels.tolist(), strict=True):
            trained[image.numpy().tobytes()] = (picture, label)
    for name in NAMES:
        picture, label = trained[stored(folders[0], name, "RGB").numpy().tobytes()]
        assert torch.equal(picture, stored(folders[1], name, "L"))
        assert label == ("cat", "dog").index(name[:3])


def test_nothing_is_held_out_of_pairs_where_that_is_asked_for(folders):
    train, held = decode_split(*pairs(Shape(8, 3), 1, *map(str, folders), 0))
    assert train is held
    assert len(train) == len(train.conditions) == 10


def test_endings_may_differ_and_pictures_be_of_another_size(tmp_path):
    images = write(tmp_path / "images", ["a.png", "b.png"], (12, 8))
    shown = write(tmp_path / "shown", ["a.bmp", "b.webp"], (48, 32), seed=1)
    train, _ = pairs(Shape(8, 3), 3, str(images), str(shown), 0)
    picture = train.conditions[torch.tensor([0])][0]
    whole = Image.open(shown / "a.bmp").resize((8, 8), Image.Resampling.BICUBIC, box=(8, 0, 40, 32))
    assert np.array_equal(picture.numpy(), np.array(whole).transpose(2, 0, 1))


def test_batches_hold_both(folders):
    train, _ = decode_split(*pairs(Shape(8, 3), 1, *map(str, folders), 0.3))
    batch = Batches(train)[4, torch.tensor([9, 2])]
    assert torch.equal(batch["images"], train[torch.tensor([2, 2])])  # 9 wraps around
    assert torch.equal(batch["conditions"], train.conditions[torch.tensor([2, 2])])
    assert batch["labels"].tolist() == train.labels[[2, 2]].tolist()
    assert "conditions" not in Batches(train.paired)[4, torch.tensor([1])]


def test_the_content_is_that_of_both(folders, tmp_path):
    contents = []
    for size in ((8, 8), (16, 16)):
        other = write(tmp_path / f"other{size}", NAMES, size)
        contents.append(pairs(Shape(8, 3), 3, str(folders[0]), str(other))[0].source.content)
    assert len({*contents, pairs(Shape(8, 3), 3, str(folders[0]), str(folders[1]))[0].source.content}) == 3
    train, _ = pairs(Shape(8, 3), 1, *map(str, folders))
    assert train.sha256 == train.paired.sha256 != train.conditions.sha256


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_arrays_hold_both(tmp_path, channels):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    shown = rng.integers(0, 256, (20, 8, 8, *([channels] if channels else [])), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, conditions=shown, labels=np.arange(20))
    train, held = pairs(Shape(8, 3), channels or 1, str(tmp_path / "x.npz"), validation=0.25)
    assert (len(train), len(held)) == (15, 5)
    for part in (train, held):
        for image, picture, label in zip(part[:], part.conditions[:], part.labels.tolist(), strict=True):
            assert np.array_equal(image.permute(1, 2, 0), images[label])
            assert np.array_equal(picture.permute(1, 2, 0), shown[label].reshape(8, 8, -1))


def test_what_is_no_pair_is_refused(folders, tmp_path):
    images, shown = folders
    (shown / "dog/4.png").unlink()
    (images / "cat/0.png").unlink()
    with pytest.raises(UserError, match=r"without a partner .*: 1 of .*images \(dog/4\) and 1 of .*edges \(cat/0\)"):
        pairs(Shape(8, 3), 1, str(images), str(shown))
    Image.new("L", (8, 8)).save(shown / "cat/1.bmp")
    with pytest.raises(UserError, match=r"edges has several pictures named cat/1"):
        pairs(Shape(8, 3), 1, str(images), str(shown))
    with pytest.raises(UserError, match=r"data\.conditions=…"):
        pairs(Shape(8, 3), 1, str(images))
    with pytest.raises(UserError, match="does not exist"):
        pairs(Shape(8, 3), 1, str(images), str(tmp_path / "nowhere"))


def test_pairs_that_show_other_frames_are_refused_before_the_training(folders):
    images, shown = folders
    Image.new("L", (8, 10)).save(shown / "dog/3.png")
    split = pairs(Shape(8, 3), 1, str(images), str(shown))
    with pytest.raises(
        UserError, match=r"dog/3.png has 8 x 10 pixels, its partner .*dog/3.png 8 x 8: the two of a pair"
    ):
        decode_split(*split)


def test_what_a_camera_turned_is_compared_as_it_is_seen(folders):
    images, shown = folders
    exif = Image.Exif()
    exif[274] = 6
    write(images, ["dog/3.png"], (12, 8))
    Image.new("L", (8, 12)).save(shown / "dog/3.png", exif=exif)
    decode_split(*pairs(Shape(8, 3), 1, str(images), str(shown)))


def test_pairs_are_looked_at_once(folders, monkeypatch):
    decode_split(*pairs(Shape(8, 3), 1, *map(str, folders)))
    monkeypatch.setattr(ImageFiles, "decode", None)
    again = decode_split(*pairs(Shape(8, 3), 1, *map(str, folders)))
    assert isinstance(again[0], PairedImages)


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (
            {"conditions": (19, 8, 8)},
            r"conditions must be as many as images, of their size, with 1 channels .*\(20, 1, 8",
        ),
        ({"conditions": (20, 4, 4)}, "conditions must be as many as images"),
        ({"conditions": (20, 8, 8, 3)}, r"with 1 channels \(condition.picture_channels\)"),
        ({"other": (20, 8, 8)}, "expected an array `conditions`, got images, other"),
    ],
)
def test_arrays_that_are_no_pairs_are_refused(shown, message, tmp_path):
    arrays = {name: np.zeros(shape, np.uint8) for name, shape in shown.items()}
    np.savez(tmp_path / "x.npz", images=np.zeros((20, 8, 8, 3), np.uint8), **arrays)
    with pytest.raises(UserError, match=message):
        pairs(Shape(8, 3), 1, str(tmp_path / "x.npz"))
    with pytest.raises(UserError, match=r"leave out data.conditions=y"):
        pairs(Shape(8, 3), 1, str(tmp_path / "x.npz"), "y")


def test_a_training_sees_images_and_their_pictures_flipped_alike(tmp_path, monkeypatch):
    """The picture is the negative of the image's red."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, conditions=255 - images[..., 0])
    seen, loss = [], Denoising.__call__

    def record(self, model, x_0, t, randn_like):
        seen.append((x_0, model._given.picture))
        return loss(self, model, x_0, t, randn_like)

    monkeypatch.setattr(Denoising, "__call__", record)
    words = ["data=pairs", "condition=pairs", "condition.picture_channels=1", "images.channels=3", "images.flip=true"]
    words += [f"data.path={tmp_path / 'x.npz'}", "data.validation=0", "trainer.batch_size=20", "trainer.max_steps=2"]
    run(tmp_path / "runs", *words, "evaluation.n=0", "samples.n=0", "validation.n=20", exp="edm_digits")
    assert len(seen) >= 3  # two steps and a validation
    known = {PixelRange().encode(torch.from_numpy(image)).numpy().tobytes() for image in images.transpose(0, 3, 1, 2)}
    flipped = 0
    for x_0, picture in seen:
        torch.testing.assert_close(picture, -x_0[:, :1])
        flipped += sum(image.contiguous().numpy().tobytes() not in known for image in x_0)
    assert 10 < flipped < 30  # of 40 that were trained on


def test_pairs_train_resume_and_validate(tmp_path, folders):
    words = ["images.channels=3", "data=pairs", f"data.path={folders[0]}", f"data.conditions={folders[1]}"]
    words += ["condition=pairs", "condition.picture_channels=1", "data.validation=0.2", "trainer.batch_size=4"]
    words += [
        "evaluation.n=0",
        "samples.n=3",
        "trainer.max_steps=2",
        "validation.every=2",
        "trainer.checkpoint_every=1",
    ]
    folder = run(tmp_path / "runs", *words, exp="edm_digits")
    model = checkpoint.load(folder / "checkpoints/last.ckpt")
    assert (model.condition_channels, model.config["data"]["conditions"]) == (1, str(folders[1]))
    moved = write(tmp_path / "elsewhere", NAMES, channels=1, seed=1)
    words += [f"data.conditions={moved}", "trainer.max_steps=3", "resume=auto"]
    assert run(tmp_path / "runs", *words, exp="edm_digits") == folder


def test_pairs_of_other_channels_are_refused_before_a_folder_is_made(tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "x.npz", images=np.zeros((20, 8, 8, 3), np.uint8), conditions=np.zeros((20, 8, 8), np.uint8))
    words = ["exp=edm_digits", "images.channels=3", "data=pairs", f"data.path={tmp_path / 'x.npz'}", "condition=pairs"]
    said = fails(train, [*words, "logger=off", f"out={tmp_path / 'runs'}"], capsys, monkeypatch)
    assert "with 3 channels (condition.picture_channels)" in said
    assert not (tmp_path / "runs").exists()
