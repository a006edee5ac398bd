"""Which pictures lie in folders and zip files, and their classes."""

import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from score_lightning.data import sources
from score_lightning.data.listing import find_classes, list_pictures
from score_lightning.data.pictures import Shape
from score_lightning.data.summary import describe
from score_lightning.errors import UserError


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / name)


def write_zip(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")


def classes_of(*names):
    classes = find_classes(names)
    return None if classes.labels is None else [classes.names[i] for i in classes.labels]


def test_pictures_are_listed_and_what_is_skipped_is_said(pictures):
    listing = list_pictures(pictures)
    assert listing.names == ["cat/a.png", "cat/b.jpg", "cat/c.PNG", "dog/d.webp", "dog/e.bmp", "dog/f.png"]
    assert listing.notes == ["skipped: 1 hidden (.hidden.png), 1 of unknown format (notes.txt)"]


def test_names_of_cameras_are_not_hidden_files(tmp_path):
    write(tmp_path, "_DSC0001.JPG", "__MACOSX/a.png", ".b.png")
    listing = list_pictures(tmp_path)
    assert listing.names == ["_DSC0001.JPG"]
    assert {reason: sorted(names) for reason, names in listing.skipped.items()} == {"hidden": [".b.png", "__MACOSX/"]}


def test_class_folders_may_be_links(tmp_path):
    write(tmp_path, "elsewhere/1.png", "elsewhere/2.png", "data/dogs/3.png")
    (tmp_path / "data/cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/dogs/all").symlink_to(tmp_path / "data")  # a circle
    (tmp_path / "data/dogs/4.png").symlink_to(tmp_path / "data/dogs/3.png")
    (tmp_path / "data/dogs/5.png").symlink_to(tmp_path / "none.png")
    (tmp_path / "data/dogs/6").symlink_to("6")  # itself
    listing = list_pictures(tmp_path / "data")
    assert listing.names == ["cats/1.png", "cats/2.png", "dogs/3.png", "dogs/4.png"]
    assert listing.skipped == {
        "linked to a folder above": ["dogs/all/"],
        "broken": ["dogs/5.png", "dogs/6"],
    }
    assert classes_of(*listing.names) == ["cats", "cats", "dogs", "dogs"]


def test_names_that_are_no_text_are_read(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write(tmp_path, name, "b.png")
    images = sources.read_pictures(tmp_path, Shape(8, 1))
    assert len(images[:]) == 2
    assert len(images.source.content) == 64


def test_classes_are_the_first_folders():
    assert classes_of("cats/train/a", "cats/extra/b", "dogs/train/c", "dogs/extra/d") == ["cats"] * 2 + ["dogs"] * 2
    assert classes_of("set/cats/a", "set/dogs/x/b") == ["cats", "dogs"]
    assert classes_of("set/a", "set/b") is None
    assert classes_of("a", "b") is None


def test_parts_of_a_data_set_are_no_classes():
    assert classes_of("train/cats/a", "test/cats/b", "train/dogs/c") == ["cats", "cats", "dogs"]
    classes = find_classes(["train/a", "test/b"])
    assert classes.labels is None
    assert classes.notes == ("test and train are taken as parts of the data, not as classes",)


def test_folders_that_are_numbers_are_in_their_order():
    names = [f"{i}/a.png" for i in range(12)]
    classes = find_classes(sorted(names))
    assert classes.names == tuple(map(str, range(12)))
    assert classes.labels[sorted(names).index("2/a.png")] == 2
    assert find_classes(["010/a", "9/a"]).names == ("9", "010")
    assert find_classes(["b10/a", "b9/a"]).names == ("b10", "b9")


def test_pictures_beside_class_folders_are_of_no_class():
    classes = find_classes(["a.png", "cats/b.png", "dogs/c.png"])
    assert classes.labels is None
    assert classes.notes == ("no classes, since pictures lie beside the class folders (a.png)",)


def test_zips_written_on_windows_have_classes(tmp_path):
    write(tmp_path, "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in ("cats\\a.png", "dogs\\b.png", "dogs\\.c.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, content)
    images = sources.read_pictures(tmp_path / "x.zip", Shape(8, 1))
    assert images.labels.tolist() == [0, 1]
    assert images.source.classes == ("cats", "dogs")
    assert images.source.notes == ("skipped: 1 hidden (dogs\\.c.png)",)
    assert images[:].shape == (2, 1, 8, 8)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_twice_in_a_zip_is_read_once(tmp_path):
    write_zip(tmp_path / "x.zip", "a.png", "a.png", "b.png", ".")
    listing = list_pictures(tmp_path / "x.zip")
    assert listing.names == ["a.png", "b.png"]
    assert listing.notes == ["skipped: 1 duplicate (a.png), 1 hidden (.)"]


def test_a_folder_without_pictures_says_what_it_holds(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"holds no pictures .*; skipped: 1 of unknown format \(a.txt\)"):
        list_pictures(tmp_path)


def test_one_line_says_what_is_read(pictures):
    train, held = sources.folder(Shape(8, 3), str(pictures), 0.3)
    assert describe("folder", train, held) == (
        "folder: 6 images, 4 to train on, 2 held out; 2 classes: cat 3, dog 3; "
        "skipped: 1 hidden (.hidden.png), 1 of unknown format (notes.txt)"
    )
    everything, _ = sources.folder(Shape(8, 3), str(pictures), 0)
    assert describe("folder", everything, everything).startswith(
        "folder: 6 images, 6 to train on, none held out; the validation loss is that of training images; 2 classes"
    )
    assert describe("reference", everything).startswith("reference: 6 images; 2 classes: cat 3, dog 3; skipped")


def test_of_many_classes_the_ends_are_shown(tmp_path):
    write(tmp_path, *(f"class {i:02d}/{j}.png" for i in range(20) for j in range(1 + (i > 4))))
    line = describe("x", sources.read_pictures(tmp_path, Shape(8, 1)))
    assert line == "x: 35 images; 20 classes: class 00, class 01 … class 19, 1 to 2 of each"
