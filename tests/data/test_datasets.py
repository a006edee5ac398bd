"""Images of any map-style data set of PyTorch: what items may be, and what is said of those that are none."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset

from score_lightning.data import datasets
from score_lightning.data.datasets import from_dataset
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import Depth
from score_lightning.data.sources import read_pictures
from score_lightning.errors import UserError

COLORS = np.random.default_rng(0).integers(0, 256, (5, 12, 8, 3), dtype=np.uint8)
PICTURES = [Image.fromarray(pixels) for pixels in COLORS]
SHAPE = Shape(8, 3)


class Listed(list):
    """A list of items with names of classes."""

    classes = ("cat", "dog")


@pytest.fixture
def expected(tmp_path):
    """The same pictures from a folder."""
    (tmp_path / "folder").mkdir()
    for i, picture in enumerate(PICTURES):
        picture.save(tmp_path / f"folder/{i}.png")
    return read_pictures(tmp_path / "folder", SHAPE)[:]


@pytest.mark.parametrize(
    "items",
    [
        PICTURES,
        COLORS,
        [(picture,) for picture in PICTURES],
        list(COLORS.transpose(0, 3, 1, 2)),
        torch.from_numpy(COLORS).permute(0, 3, 1, 2),
        [{"image": picture, "name": "x"} for picture in PICTURES],
        TensorDataset(torch.from_numpy(COLORS).permute(0, 3, 1, 2)),
    ],
    ids=["pillow", "arrays", "tuples", "channels first", "tensors", "dicts", "TensorDataset"],
)
def test_images_are_those_of_a_folder_of_the_same_pictures(items, expected):
    images = from_dataset(items, SHAPE)
    assert torch.equal(images[:], expected)
    assert images.labels is None
    assert images.source.notes == ("5 pictures not square, cropped to the central square",)


def test_gray_tensors_need_no_axis_of_channels():
    gray = torch.from_numpy(COLORS[..., 0])
    a, b = from_dataset(gray, Shape((12, 8), 1)), from_dataset(gray[:, None], Shape((12, 8), 1))
    assert torch.equal(a[:], gray[:, None])
    assert torch.equal(a[:], b[:])


@pytest.mark.parametrize(
    ("items", "depth"),
    [
        (COLORS.astype(np.uint16) * 257 + 1, Depth(torch.uint16, 0, 65535)),
        (COLORS.astype(np.float32) / 300, Depth(torch.float32, 0, 1)),
        (COLORS.astype(np.float64) / 512, Depth(torch.float32, 0, 1)),
    ],
)
def test_all_bits_of_arrays_are_kept(items, depth):
    images = from_dataset(items, Shape((12, 8), 3, depth=depth))
    assert images.depth == depth
    assert torch.equal(images[:], torch.from_numpy(items).permute(0, 3, 1, 2).to(depth.dtype))


def test_a_gray_picture_of_pillow_keeps_its_16_bits():
    pixels = COLORS[0, :8, :8, 0].astype(np.uint16) * 257 + 1
    images = from_dataset([Image.fromarray(pixels)], Shape(8, 1, depth=Depth(torch.uint16, 0, 65535)))
    assert torch.equal(images[0:1][0, 0], torch.from_numpy(pixels))


def test_labels_and_the_names_of_classes_are_those_of_the_data_set():
    data = Listed(zip(PICTURES, [1, np.int64(0), torch.tensor(1), True, 0], strict=True))
    images = from_dataset(data, SHAPE)
    assert images.labels.tolist() == [1, 0, 1, 1, 0]
    assert images.labels.dtype == torch.int64
    assert images.source.classes == ("cat", "dog")
    part = from_dataset(Subset(data, [1, 2]), SHAPE)
    assert part.labels.tolist() == [0, 1]
    assert part.source.classes == ("cat", "dog")
    assert from_dataset(data, SHAPE, classes=["a", "b"]).source.classes == ("a", "b")
    assert from_dataset(Listed(PICTURES), SHAPE).source.classes is None  # no labels
    dicts = [{"image": image, "label": label} for image, label in data]
    assert from_dataset(dicts, SHAPE).labels.tolist() == [1, 0, 1, 1, 0]


def test_any_change_of_an_image_is_another_content_and_the_place_is_none():
    one = from_dataset(PICTURES, SHAPE).source.content
    assert from_dataset(list(COLORS), SHAPE).source.content == one
    changed = COLORS.copy()
    changed[3, 6, 4, 0] ^= 1
    assert from_dataset(list(changed), SHAPE).source.content != one
    assert from_dataset(PICTURES[::-1], SHAPE).source.content != one


class Counted(list):
    """Counts how often items are read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_named_images_are_read_once_and_compared_with_those_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets, "COMPARED", 2)
    items = list(zip(PICTURES, [0, 1, 0, 1, 2], strict=True))
    once = from_dataset(items, SHAPE, content="five")
    again = Counted(items)
    second = from_dataset(again, SHAPE, content="five")
    assert again.reads == 2
    assert torch.equal(second[:], once[:])
    assert second.labels.tolist() == [0, 1, 0, 1, 2]
    assert second.source == once.source
    assert once.source.notes
    with pytest.raises(UserError, match=r"item 4 .* differs when it is read again.*content='five' has others"):
        from_dataset([*items[:4], items[0]], SHAPE, content="five")
    assert torch.equal(from_dataset([*items[:4], items[0]], SHAPE, content="6")[4:5], once[0:1])
    (said,) = [path for path in tmp_path.glob("*.json") if "2]" in path.read_text()]
    said.write_text("[")
    again = Counted(items)
    assert from_dataset(again, SHAPE, content="five").labels.tolist() == [0, 1, 0, 1, 2]
    assert again.reads == 7


def test_named_images_are_in_memory_where_there_is_no_cache_folder(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path / "file"))
    images = from_dataset(list(zip(PICTURES, range(5), strict=True)), SHAPE, content="five")
    assert torch.equal(images[:], from_dataset(PICTURES, SHAPE)[:])
    assert images.labels.tolist() == [0, 1, 2, 3, 4]
    assert "memory of each process" in capsys.readouterr().out


def test_workers_read_the_same_and_take_no_random_numbers():
    state = torch.get_rng_state()
    alone, shared = from_dataset(PICTURES, SHAPE), from_dataset(PICTURES, SHAPE, workers=2)
    assert torch.equal(alone[:], shared[:])
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(UserError, match="item 5 of the data set cannot be used: it is of type str"):
        from_dataset([*PICTURES, "x"], SHAPE, workers=2)


def test_random_transforms_are_refused():
    class Random(list):
        def __getitem__(self, index):
            return torch.rand(3, 8, 8)

    shape = Shape(8, 3, depth=Depth(torch.float32, 0, 1))
    with pytest.raises(UserError, match="item 0 of the data set differs when it is read again: leave out random tran"):
        from_dataset(Random(PICTURES), shape)


def test_images_larger_than_memory_need_a_name(monkeypatch):
    monkeypatch.setattr(datasets, "available_bytes", lambda: 1000)
    with pytest.raises(UserError, match=r"the 5 images of the data set take .* content=NAME"):
        from_dataset(PICTURES, SHAPE)
    assert len(from_dataset(PICTURES, SHAPE, content="large")) == 5


class Broken(list):
    def __getitem__(self, index):
        if index == 2:
            raise KeyError("lost")
        return super().__getitem__(index)


class Stream(IterableDataset):
    def __iter__(self):
        yield from PICTURES


FLOATS = torch.from_numpy(COLORS).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (Stream(), "which Stream cannot give: expected a data set with __len__ and __getitem__, got an iterable one"),
        (iter(PICTURES), "which list_iterator cannot give"),
        ([], "the data set has no items"),
        (
            [*PICTURES, None],
            "item 5 of the data set cannot be used: it is of type NoneType: expected a picture of Pill",
        ),
        ([*PICTURES, COLORS[0, 0, 0]], r"item 5 .* it has the shape \(3,\): expected"),
        ([*COLORS, COLORS], r"item 5 .* it has the shape \(5, 12, 8, 3\): expected"),
        ([*PICTURES, COLORS[0, ..., :2]], "item 5 .* it has 2 channels: set images.channels=2"),
        ([COLORS[0].astype(int)], "item 0 .* its pixels are int64, whose white is not known"),
        (FLOATS, r"item 0 .* its pixels are floats: set images.depth=float and images.input_range=\[black,white\]"),
        (Broken(PICTURES), "item 2 .* KeyError: 'lost'"),
        ([(PICTURES[0], 0), (PICTURES[1], -1)], "item 1 .* its label must be a number from 0, got -1"),
        ([(PICTURES[0], 0), (PICTURES[1], "cat")], "item 1 .* its label must be a whole number, got 'cat'"),
        ([(PICTURES[0], 0), (PICTURES[1], [0, 1])], r"item 1 .* its label must be a whole number, got \[0, 1\]"),
        ([(PICTURES[0], 0.5)], "item 0 .* its label must be a whole number, got 0.5"),
        (Listed([(PICTURES[0], 2)]), "item 0 .* its label must be a number from 0 to 1, of 2 classes, got 2"),
        ([(PICTURES[0], 0), (PICTURES[1], None)], "item 1 of the data set has no label, item 0 one"),
        ([PICTURES[0], (PICTURES[1], 1)], "item 1 of the data set has a label, item 0 none"),
        ([(PICTURES[0], 1, "a.png")], r"item 0 .* it has 3 parts, expected \(image, label\) or \(image,\)"),
        ([{"img": PICTURES[0], "label": 1}], "item 0 .* it has no key 'image', but 'img', 'label'"),
    ],
)
def test_items_that_are_no_images_are_named(items, message):
    with pytest.raises(UserError, match=message):
        from_dataset(items, SHAPE)
