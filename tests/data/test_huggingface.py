"""data=huggingface, from files that the package `datasets` itself writes."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support import assert_same_state, decoded, fails, run, state
from torch.utils.data import DataLoader

from score_lightning import train
from score_lightning.data.huggingface import huggingface
from score_lightning.data.images import LazyImageSet
from score_lightning.data.module import Batches
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import Depth
from score_lightning.data.sources import folder
from score_lightning.errors import UserError

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (10, 12, 8, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (10, 8, 8), dtype=np.uint16)
LABELS = [1, 0, 2, 1, 0, 2, 1, 0, 2, 1]
NAMES = ["cat", "dog", "bird"]
SHAPE = Shape(8, 3)


@pytest.fixture(scope="module", autouse=True)
def hub(tmp_path_factory):
    """The package, without a network, and with its cache in a folder of the test."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    hub = pytest.importorskip("datasets", reason="needs the package datasets: pip install 'score_lightning[datasets]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hub"))
        patch.setattr(hub.config, "HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield hub


@pytest.fixture(scope="module")
def rows(hub):
    """A data set of ten pictures with labels and texts."""
    features = hub.Features(image=hub.Image(), label=hub.ClassLabel(names=NAMES), text=hub.Value("string"))
    pictures = [Image.fromarray(pixels) for pixels in COLORS]
    return hub.Dataset.from_dict({"image": pictures, "label": LABELS, "text": list("bacbacbacb")}, features)


def parquet(root, **splits):
    """A clone of a data set of the hub."""
    for name, rows in splits.items():
        (root / "data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(root / f"data/{name}-00000-of-00001.parquet")
    return str(root)


def write(layout, root, rows, hub):
    """The path of the rows, written in a layout."""
    if layout == "clone":
        return parquet(root, train=rows)
    if layout == "file":
        rows.to_parquet(root / "rows.parquet")
        return str(root / "rows.parquet")
    if layout == "saved":
        rows.save_to_disk(root / "saved")
    elif layout == "saved splits":
        hub.DatasetDict(train=rows).save_to_disk(root / "saved")
    elif layout == "imagefolder":
        for i, pixels in enumerate(COLORS):
            place = root / "saved" / NAMES[LABELS[i]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return str(root / "saved")


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """The same pictures from a folder of PNG files, by number."""
    root = tmp_path_factory.mktemp("folder")
    for i, pixels in enumerate(COLORS):
        Image.fromarray(pixels).save(root / f"{i}.png")
    return folder(SHAPE, str(root), validation=0)[0][:]


@pytest.mark.parametrize("layout", ["clone", "file", "saved", "saved splits", "imagefolder"])
def test_images_are_those_of_a_folder_of_the_same_pictures(layout, tmp_path, rows, hub, same):
    images, held = huggingface(SHAPE, write(layout, tmp_path, rows, hub), validation=0)
    assert held is images
    assert isinstance(images, LazyImageSet)
    order, names = list(range(10)), NAMES
    if layout == "imagefolder":  # in the order of the paths, as are the classes
        names = sorted(NAMES)
        order.sort(key=lambda i: (NAMES[LABELS[i]], i))
    assert images.source.classes == tuple(names)
    assert [names[i] for i in images.labels] == [NAMES[LABELS[i]] for i in order]
    assert torch.equal(images[:], same[order])
    mapped = decoded(images)
    assert not isinstance(mapped, LazyImageSet)
    assert torch.equal(mapped[:], same[order])
    assert mapped.source.notes == ("10 pictures not square, cropped to the central square",)


def test_metadata_of_an_imagefolder_are_columns(tmp_path, same):
    (tmp_path / "train").mkdir()
    for i, pixels in enumerate(COLORS):
        Image.fromarray(pixels).save(tmp_path / f"train/{i}.png")
    lines = [f"{i}.png,{'bacbacbacb'[i]},{i % 3}" for i in range(10)]
    (tmp_path / "train/metadata.csv").write_text("\n".join(["file_name,kind,number", *lines]))
    images, _ = huggingface(SHAPE, str(tmp_path), label="kind", validation=0)
    assert torch.equal(images[:], same)
    assert images.source.classes == ("a", "b", "c")
    assert images.labels.tolist() == [1, 0, 2, 1, 0, 2, 1, 0, 2, 1]
    numbered, _ = huggingface(SHAPE, str(tmp_path), label="number", validation=0)
    assert numbered.source.classes is None
    assert numbered.labels.tolist() == [i % 3 for i in range(10)]
    none, _ = huggingface(SHAPE, str(tmp_path), validation=0)
    assert none.labels is None
    assert none.source.notes == ("no classes, since no column is a ClassLabel (data.label=number takes its numbers)",)


def test_validation_is_a_split_of_its_own_or_a_share(tmp_path, rows, same):
    path = parquet(tmp_path, train=rows.select(range(7)), test=rows.select(range(7, 10)))
    train, held = huggingface(SHAPE, path)
    assert (len(train), torch.equal(held[:], same[7:])) == (7, True)
    assert held.source.notes == ("held out is the split test",)
    assert held.labels.tolist() == LABELS[7:]
    train, held = huggingface(SHAPE, path, validation=0.3)
    assert (len(train), len(held)) == (5, 2)
    train, held = huggingface(SHAPE, path, split="train[:5]+test", validation="train[5:]")
    assert torch.equal(train[:], torch.cat([same[:5], same[7:]]))
    assert torch.equal(held[:], same[5:7])
    alone = parquet(tmp_path / "alone", train=rows)
    assert [len(part) for part in huggingface(SHAPE, alone)] == [9, 1]  # 5 %, at least one


def test_moved_data_have_the_same_content_and_other_data_another(tmp_path, rows, hub):
    first = write("saved", tmp_path, rows, hub)
    one = huggingface(SHAPE, first)[0].source
    (tmp_path / "saved").rename(tmp_path / "moved")
    assert huggingface(SHAPE, str(tmp_path / "moved"))[0].source == one
    write("clone", tmp_path / "clone", rows, hub)
    assert huggingface(SHAPE, str(tmp_path / "clone"))[0].source == one
    shorter = rows.select(range(9))
    assert huggingface(SHAPE, write("saved", tmp_path / "other", shorter, hub))[0].source.content != one.content


def test_changed_data_of_the_same_sizes_are_decoded_anew(tmp_path, hub):
    for change in (0, 1):
        pictures = [Image.fromarray(COLORS[0] ^ np.uint8(change)).resize((8, 8))] * 3
        bitmaps = []
        for i, picture in enumerate(pictures):
            picture.save(tmp_path / f"{i}.bmp")
            bitmaps.append(str(tmp_path / f"{i}.bmp"))
        rows = hub.Dataset.from_dict({"image": bitmaps}, hub.Features(image=hub.Image()))
        rows.save_to_disk(tmp_path / f"saved{change}")
        (tmp_path / f"saved{change}").rename(tmp_path / "saved")
        images = decoded(huggingface(SHAPE, str(tmp_path / "saved"), validation=0)[0])
        assert torch.equal(images[:][0], torch.from_numpy(np.asarray(pictures[0]).copy()).permute(2, 0, 1))
        (tmp_path / "saved").rename(tmp_path / f"old{change}")


def test_workers_read_what_the_process_reads(tmp_path, rows, same):
    images, _ = huggingface(SHAPE, parquet(tmp_path, train=rows), validation=0)
    _ = images[:2]
    order = [(i, torch.arange(5 * i, 5 * i + 5)) for i in range(2)]
    batches = list(DataLoader(Batches(images), batch_size=None, sampler=order, num_workers=2))
    assert torch.equal(torch.cat([batch["images"] for batch in batches]), same)
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == LABELS


def test_16_bits_of_pictures_are_kept_and_reduced_with_a_note(tmp_path, hub):
    rows = hub.Dataset.from_dict({"image": [Image.fromarray(d) for d in DEEP]}, hub.Features(image=hub.Image()))
    path = parquet(tmp_path, train=rows)
    deep, _ = huggingface(Shape(8, 1, depth=Depth(torch.uint16, 0, 65535)), path, validation=0)
    assert torch.equal(deep[:][:, 0], torch.from_numpy(DEEP))
    flat = decoded(huggingface(Shape(8, 1), path, validation=0)[0])
    assert flat.source.notes == ("10 pictures of more than 8 bits, reduced to 8 (images.depth=16 keeps them)",)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["Array3D", "lists"])
def test_arrays_are_images(dtype, kind, tmp_path, hub):
    top = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    arrays = (RNG.random((6, 2, 4, 6)) * top).astype(dtype)
    feature = hub.Array3D((2, 4, 6), dtype) if kind == "Array3D" else hub.List(hub.List(hub.List(hub.Value(dtype))))
    rows = hub.Dataset.from_dict({"pixels": arrays.tolist()}, hub.Features(pixels=feature))
    rows.save_to_disk(tmp_path / "saved")
    shape = Shape((4, 6), 2, depth=Depth(getattr(torch, dtype), 0, top))
    column = "pixels" if kind == "lists" else "auto"  # boxes and the like are lists of lists, too
    images, _ = huggingface(shape, str(tmp_path / "saved"), image=column, validation=0)
    assert torch.equal(images[:], torch.from_numpy(arrays))
    assert torch.equal(decoded(images)[:], torch.from_numpy(arrays))
    other = arrays.copy()
    other[3, 0, 0, 0] = 0 if other[3, 0, 0, 0] else top
    hub.Dataset.from_dict({"pixels": other.tolist()}, hub.Features(pixels=feature)).save_to_disk(tmp_path / "other")
    assert huggingface(shape, str(tmp_path / "other"), image=column)[0].source.content != images.source.content


def test_bytes_that_are_not_marked_as_images_are_when_they_are_asked_for(tmp_path, rows, hub, same):
    files = [row["bytes"] for row in rows.cast_column("image", hub.Image(decode=False))["image"]]
    for column in ({"png": files}, {"png": [{"bytes": file, "path": None} for file in files]}):
        plain = hub.Dataset.from_dict(column)
        path = tmp_path / f"{type(column['png'][0]).__name__}.parquet"
        plain.to_parquet(path)
        images, _ = huggingface(SHAPE, str(path), image="png", validation=0)
        assert torch.equal(images[:], same)
        with pytest.raises(UserError, match=r"no column that is marked as images: set data.image=COLUMN, of png"):
            huggingface(SHAPE, str(path))


def test_a_damaged_picture_is_named(tmp_path, hub):
    files = [{"bytes": b"not a picture", "path": None}, None]
    rows = hub.Dataset.from_dict({"image": files}, hub.Features(image=hub.Image()))
    images, _ = huggingface(SHAPE, parquet(tmp_path, train=rows), validation=0)
    with pytest.raises(UserError, match=r"train\[0\] cannot be read: not a picture"):
        _ = images[:1]
    with pytest.raises(UserError, match=r"train\[1\] cannot be read: the row has no picture"):
        _ = images[1:]


def test_mistakes_name_columns_and_splits(tmp_path, rows, hub):
    path = parquet(tmp_path, train=rows.add_column("other", list(range(10))))
    listed = r"image \(Image\), label \(ClassLabel\), text \(string\), other \(int64\)"
    for words, message in [
        ({"image": "img"}, rf"no column 'img' \(data.image\); there are {listed}"),
        ({"image": "text"}, rf"column 'text' holds no images: data.image=COLUMN, of {listed}"),
        ({"label": "class"}, rf"no column 'class' \(data.label\); there are {listed}"),
        ({"label": "image"}, "column 'image' holds no labels .* but Image"),
        ({"split": "val"}, r"no split 'val' \(data.split\); there are train"),
        ({"split": "train["}, r"no split 'train\['"),
        ({"split": "train[5:5]"}, "has no rows"),
        ({"validation": "test"}, r"no split 'test' \(data.validation\); there are train"),
        ({"validation": 1.5}, "data.validation must be 0"),
        ({"subset": "large"}, "'large' not found.*; set data.subset to one of them"),
    ]:
        with pytest.raises(UserError, match=message):
            huggingface(SHAPE, path, **words)
    files = rows.cast_column("image", hub.Image(decode=False))["image"][:]
    several = rows.add_column("second", files, feature=hub.Image())
    with pytest.raises(UserError, match=r"several columns of images, image, second: set data.image"):
        huggingface(SHAPE, parquet(tmp_path / "several", train=several))
    with pytest.raises(UserError, match="no column that is marked as images"):
        huggingface(SHAPE, parquet(tmp_path / "none", train=rows.remove_columns("image")))
    classes = rows.add_column("kind", LABELS, feature=hub.ClassLabel(names=NAMES))
    with pytest.raises(UserError, match=r"several columns of classes: set data.label to one of label, kind, or null"):
        huggingface(SHAPE, parquet(tmp_path / "classes", train=classes))
    assert huggingface(SHAPE, str(tmp_path / "classes"), label=None)[0].labels is None


def test_labels_out_of_range_are_named(tmp_path, rows, hub):
    hidden = rows.remove_columns("label").add_column("label", [-1] * 10, feature=hub.ClassLabel(names=NAMES))
    path = parquet(tmp_path, train=rows, test=hidden)
    with pytest.raises(UserError, match=r"test\[0\] has the label -1, expected numbers from 0 to 2, .*data.validation"):
        huggingface(SHAPE, path)
    assert huggingface(SHAPE, path, validation=0.1)[0].labels is not None
    absent = rows.remove_columns("label").add_column("label", [None, *LABELS[1:]], feature=hub.Value("int64"))
    with pytest.raises(UserError, match=r"train\[0\] has no 'label': set data.label=null"):
        huggingface(SHAPE, parquet(tmp_path / "absent", train=absent), label="label")


def test_what_is_not_there_or_damaged_is_said_in_one_message(tmp_path):
    with pytest.raises(UserError, match="OWNER/NAME on the hub"):
        huggingface(SHAPE, str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no folder or file here, and cannot be loaded .* set data.path=DIR"):
        huggingface(SHAPE, "owner/name")
    (tmp_path / "rows.txt").touch()
    with pytest.raises(UserError, match=r"a file that ends in \.parquet"):
        huggingface(SHAPE, str(tmp_path / "rows.txt"))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"rows.parquet cannot be read as a data set: .*[Pp]arquet"):
        huggingface(SHAPE, str(tmp_path / "rows.parquet"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty cannot be read as a data set"):
        huggingface(SHAPE, str(tmp_path / "empty"))


def test_the_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the package datasets: pip install 'score_lightning\[datasets\]'"):
        huggingface(SHAPE, str(tmp_path))


@pytest.mark.slow
def test_a_training_is_that_on_a_folder_of_the_same_pictures_and_resumes_bit_for_bit(tmp_path, rows):
    words = ["images.channels=3", "evaluation.n=0", "samples.n=0", "validation.n=10", "trainer.batch_size=4"]
    (tmp_path / "png").mkdir()
    for i, pixels in enumerate(COLORS):
        Image.fromarray(pixels).save(tmp_path / f"png/{i}.png")
    whole = run(tmp_path / "a", *words, "data=folder", f"data.path={tmp_path / 'png'}", "data.validation=0.2")
    words += ["data=huggingface", f"data.path={parquet(tmp_path, train=rows)}", "data.validation=0.2"]
    half = run(tmp_path / "b", *words, "trainer.max_steps=2", "trainer.workers=1")
    resumed = run(tmp_path / "b", *words, "resume=auto")
    assert resumed == half
    assert_same_state(state(whole), state(resumed))


def test_mistakes_end_the_command_with_one_message(tmp_path, rows, capsys, monkeypatch):
    path = parquet(tmp_path, train=rows)
    words = ["exp=ddpm_digits", "data=huggingface", f"out={tmp_path / 'runs'}"]
    capsys.readouterr()  # what wrote the file has printed
    assert "needs data.path=" in fails(train, words, capsys, monkeypatch)
    for given, message in [("owner/name", "set data.path=DIR"), (path, "no split 'no' (data.split)")]:
        said = fails(train, [*words, f"data.path={given}", "data.split=no"], capsys, monkeypatch)
        assert message in said
    assert not (tmp_path / "runs").exists()
