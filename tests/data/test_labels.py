"""Labels in a file beside pictures."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from score_lightning.data.pictures import Shape
from score_lightning.data.sources import folder, read_pictures
from score_lightning.data.summary import describe
from score_lightning.errors import UserError

NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"]
PAIRS = [[name, i] for i, name in enumerate(NAMES)]


@pytest.fixture
def write(tmp_path):
    """A function that writes pictures of gray levels 0, 1, 2 and their labels."""

    def write(labels):
        for i, name in enumerate(NAMES):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(tmp_path / name)
        text = labels if isinstance(labels, str) else json.dumps({"labels": labels})
        (tmp_path / "dataset.json").write_text(text)
        return tmp_path

    return write


def test_labels_are_those_of_the_file_in_whatever_order_it_has_them(write):
    images = read_pictures(write([PAIRS[2], PAIRS[0], PAIRS[1]]), Shape(8, 1))
    assert images.labels.tolist() == images[:][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert describe("folder", images) == "folder: 3 images; 3 classes: 0 1, 1 1, 2 1"


def test_with_other_labels_data_are_others(write):
    first = read_pictures(write(PAIRS), Shape(8, 1)).source.content
    assert read_pictures(write(PAIRS), Shape(8, 1)).source.content == first
    assert read_pictures(write([[name, 0] for name in NAMES]), Shape(8, 1)).source.content != first


def test_without_labels_folders_are_no_classes(write):
    images = read_pictures(write(None), Shape(8, 1))
    assert images.labels is None
    assert images.source.notes == ("no classes, since dataset.json says that there are none",)


def test_labels_of_pictures_that_are_not_there_are_counted(write):
    images = read_pictures(write([*PAIRS, ["00001/img00001001.png", 3]]), Shape(8, 1))
    assert images.labels.tolist() == [0, 1, 2]
    assert images.source.notes == ("labels in dataset.json of pictures that are not there: 1",)


def test_names_with_backslashes_in_a_zip_have_labels(write, tmp_path):
    root = write(PAIRS)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name in NAMES:
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")
            archive.writestr(info, (root / name).read_bytes())
        archive.write(root / "dataset.json", "dataset.json")
    assert read_pictures(tmp_path / "x.zip", Shape(8, 1)).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (PAIRS[:1], r"no label of 2 of the pictures: 00000/img00000001\.png, 00001/img00001000\.png"),
        ([[name, [0.5, 1.0]] for name in NAMES], r"whole numbers from 0 on, got \[0\.5, 1\.0\] of 00000/img00000000"),
        ([[name, -1] for name in NAMES], "got -1 of"),
        ([[name, True] for name in NAMES], "got True of"),
        ([[name, 2**70] for name in NAMES], "from 0 on, got 1180591620717411303424 of"),
        ([1, 2, 3], "holds no labels"),
        ("{", "holds no labels"),
        ("[]", "holds no labels"),
        ("{}", "move it away if it is for something else"),
        ("[" * 100_000, "holds no labels"),
    ],
)
def test_labels_that_make_no_sense_are_named(labels, message, write):
    with pytest.raises(UserError, match=message):
        folder(Shape(8, 1), str(write(labels)))
