"""LSUN, FFHQ and ImageNet, from small files in the layouts that users have."""

import io
import json
import zipfile

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image
from support import decoded
from torch.utils.data import DataLoader

from score_lightning.data.archives import ffhq, imagenet, imagenet64, lsun
from score_lightning.data.images import LazyImageSet
from score_lightning.data.module import Batches
from score_lightning.data.pictures import Shape
from score_lightning.errors import UserError

RNG = np.random.default_rng(0)


def picture(size=(8, 8), kind="PNG"):
    """(its file, its pixels uint8 (H, W, 3))."""
    pixels, file = RNG.integers(0, 256, (*size[::-1], 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue(), pixels


def write_lsun(root, part, n):
    expected = {}
    with lmdb.open(str(root / f"tower_{part}_lmdb"), map_size=2**22) as environment, environment.begin(write=True) as t:
        for i in range(n):
            key = f"{RNG.integers(2**60):040x}"
            content, expected[key] = picture(kind="WEBP")
            t.put(key.encode(), content)
            del i
    return [expected[key] for key in sorted(expected)]


def same(images, expected):
    torch.testing.assert_close(images[:], torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2))


def write_edm(path, labels):
    """What dataset_tool.py of EDM writes: a zip of uncompressed PNGs, and their labels; or such a folder."""
    expected, members = [], {}
    for i in range(len(labels or range(6))):
        pixels, file = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8), io.BytesIO()
        Image.fromarray(pixels).save(file, format="png", compress_level=0, optimize=False)
        members[f"{i // 3:05d}/img{i:08d}.png"] = file.getvalue()
        expected.append(pixels)
    listed = labels and [[name, value] for name, value in zip(members, labels, strict=True)]
    members["dataset.json"] = json.dumps({"labels": listed}).encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        for name, content in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return expected


def test_lsun_is_read_from_its_lmdb_folders(tmp_path):
    train, held = write_lsun(tmp_path, "train", 5), write_lsun(tmp_path, "val", 2)
    split = lsun(Shape(8, 3), str(tmp_path), "tower")
    same(split[0], train)
    same(split[1], held)
    mapped = decoded(split[0])
    assert not isinstance(mapped, LazyImageSet)
    same(mapped, train)
    with pytest.raises(UserError, match=r"church_outdoor_train_lmdb has no data\.mdb"):
        lsun(Shape(8, 3), str(tmp_path))


def test_lsun_is_read_by_workers_of_a_process_that_has_read_it(tmp_path):
    expected = write_lsun(tmp_path, "train", 6)
    write_lsun(tmp_path, "val", 2)
    train, _ = lsun(Shape(8, 3), str(tmp_path), "tower")
    same(train, expected)
    order = [(0, torch.tensor([0, 1, 2])), (1, torch.tensor([3, 4, 5]))]
    batches = DataLoader(Batches(train), batch_size=None, sampler=order, num_workers=2)
    for _ in range(2):
        found = torch.cat([batch["images"] for batch in batches])
        torch.testing.assert_close(found, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2))
        same(train, expected)


def test_objects_of_lsun_have_one_folder(tmp_path):
    write_lsun(tmp_path, "train", 8)
    (tmp_path / "tower_train_lmdb").rename(tmp_path / "cat")
    train, held = lsun(Shape(8, 3), str(tmp_path), "cat")
    assert (len(train), len(held)) == (7, 1)


def test_a_damaged_lmdb_is_named(tmp_path):
    for part in ("train", "val"):
        (tmp_path / f"tower_{part}_lmdb").mkdir()
        (tmp_path / f"tower_{part}_lmdb/data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(UserError, match="tower_train_lmdb cannot be read as LMDB"):
        lsun(Shape(8, 3), str(tmp_path), "tower")


def test_ffhq_is_split_by_the_numbers_of_its_faces(tmp_path):
    expected = {}
    for number in (0, 1, 59_999, 60_000, 69_999):
        path = tmp_path / f"thumbnails128x128/{number // 1000 * 1000:05d}/{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        content, expected[number] = picture()
        path.write_bytes(content)
    train, held = ffhq(Shape(8, 3), str(tmp_path))
    same(train, [expected[i] for i in (0, 1, 59_999)])
    same(held, [expected[i] for i in (60_000, 69_999)])
    with pytest.raises(UserError, match="does not exist"):
        ffhq(Shape(256, 3), str(tmp_path / "none"))


def test_ffhq_in_a_zip_of_the_first_faces_holds_some_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "ffhq.zip", "w") as archive:
        for i in range(10):
            archive.writestr(f"00000/img{i:08d}.png", picture()[0])
    train, held = ffhq(Shape(8, 3), str(tmp_path / "ffhq.zip"))
    assert (len(train), len(held)) == (9, 1)


def test_ffhq_of_edms_dataset_tool_has_no_labels(tmp_path):
    expected = write_edm(tmp_path / "ffhq-64x64.zip", None)
    train, held = ffhq(Shape(8, 3), str(tmp_path / "ffhq-64x64.zip"), "none")
    assert held is train
    same(train, expected)
    assert train.labels is None
    assert train.source.notes == ()


def test_imagenet_is_read_from_its_npz_batches(tmp_path):
    arrays = {}
    for name, n in (("train_data_batch_1", 3), ("train_data_batch_2", 2), ("val_data", 2)):
        arrays[name] = RNG.integers(0, 256, (n, 3 * 64 * 64), dtype=np.uint8), RNG.integers(1, 1001, n)
        np.savez(tmp_path / f"{name}.npz", data=arrays[name][0], labels=arrays[name][1])
    train, held = imagenet64(Shape(64, 3), str(tmp_path))
    expected = np.concatenate([arrays["train_data_batch_1"][0], arrays["train_data_batch_2"][0]])
    assert torch.equal(train[:], torch.from_numpy(expected).view(5, 3, 64, 64))
    assert train.labels[3].item() == arrays["train_data_batch_2"][1][0] - 1
    assert len(held) == 2
    with pytest.raises(UserError, match="64 pixels"):
        imagenet64(Shape(32, 3), str(tmp_path))
    (tmp_path / "val_data.npz").write_bytes((tmp_path / "val_data.npz").read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        imagenet64(Shape(64, 3), str(tmp_path))


def test_imagenet_is_read_from_folders_with_and_without_classes(tmp_path):
    for folder in (
        "small/train_64x64",
        "small/valid_64x64",
        "full/train/n01",
        "full/train/n02",
        "full/val/n01",
        "full/val/n02",
    ):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(2):
            (tmp_path / folder / f"{i}.png").write_bytes(picture((64, 64))[0])
    train, held = imagenet64(Shape(64, 3), str(tmp_path / "small"))
    assert (len(train), len(held), train.labels) == (2, 2, None)
    train, _ = imagenet64(Shape(64, 3), str(tmp_path / "full"))
    assert train.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["imagenet-64x64.zip", "imagenet-64x64"])
def test_imagenet_of_edms_dataset_tool_has_its_labels(name, tmp_path):
    labels = [3, 0, 0, 1, 2, 3]  # which its folders do not say
    expected = write_edm(tmp_path / name, labels)
    train, held = imagenet(Shape(8, 3), str(tmp_path / name))
    same(train, expected)
    assert train.labels.tolist() == labels
    assert held is train
    assert train.source.notes == ()
    train, held = imagenet(Shape(8, 3), str(tmp_path / name), validation=0.3)
    assert (len(train), len(held), len(train.labels)) == (4, 2, 4)


def test_imagenet_of_another_size_is_read_from_class_folders(tmp_path):
    for folder in ("train/n01", "train/n02", "val/n01", "val/n02"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").write_bytes(picture((16, 12))[0])
    train, held = imagenet(Shape(8, 3), str(tmp_path))
    assert (train.labels.tolist(), held.labels.tolist(), train.source.classes) == ([0, 1], [0, 1], ("n01", "n02"))
    assert train[:].shape == (2, 3, 8, 8)
    alone, _ = imagenet(Shape(8, 3), str(tmp_path / "train"))
    assert (alone.labels.tolist(), alone.source.classes) == ([0, 1], ("n01", "n02"))
    for name in ("n01", "n02"):  # as the challenge distributes it
        (tmp_path / f"val/{name}/a.png").rename(tmp_path / f"val/ILSVRC2012_{name}.png")
    train, held = imagenet(Shape(8, 3), str(tmp_path))
    assert train.labels is held.labels is None
    assert (
        f"no class folders as {tmp_path}/train has: data=imagenet data.path={tmp_path}/train" in train.source.notes[0]
    )


def test_two_zips_of_edms_dataset_tool_are_train_and_val(tmp_path):
    train_pixels, held_pixels = write_edm(tmp_path / "train.zip", [1, 0, 2]), write_edm(tmp_path / "val.zip", [2, 2])
    train, held = imagenet(Shape(8, 3), str(tmp_path))
    same(train, train_pixels)
    same(held, held_pixels)
    assert (train.labels.tolist(), held.labels.tolist()) == ([1, 0, 2], [2, 2])
    (tmp_path / "val.zip").unlink()
    with zipfile.ZipFile(tmp_path / "val.zip", "w") as archive:
        archive.writestr("n01/a.png", picture()[0])
    with pytest.raises(UserError, match=r"train\.zip has labels in dataset\.json, .*val\.zip has none"):
        imagenet(Shape(8, 3), str(tmp_path))


def test_imagenet_that_is_not_there_or_pickled_is_named(tmp_path):
    with pytest.raises(UserError, match="neither train_data_batch"):
        imagenet64(Shape(64, 3), str(tmp_path))
    (tmp_path / "train_data_batch_1").write_bytes(b"pickle")
    with pytest.raises(UserError, match="pickled batches, which are not read"):
        imagenet64(Shape(64, 3), str(tmp_path))


def test_ffhq_is_split_as_in_ncsnv2s_code(tmp_path):
    for i in range(20):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:05d}.png")
    train, held = ffhq(Shape(8, 3), str(tmp_path), "ncsnv2")
    order = list(range(20))
    np.random.seed(2019)
    np.random.shuffle(order)
    assert held.images[:, 0, 0, 0].tolist() == sorted(order[18:])
    assert train.images[:, 0, 0, 0].tolist() == sorted(order[:18])
    with pytest.raises(UserError, match="numbers, ncsnv2 or none, got 'half'"):
        ffhq(Shape(8, 3), str(tmp_path), "half")
    train, held = ffhq(Shape(8, 3), str(tmp_path), "none")
    assert held is train
    assert len(train) == 20
