"""Pictures with all their bits and channels: what is read is what was written."""

import io

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support import decoded

from score_lightning.data import sources
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import Depth
from score_lightning.data.rasters import ORIENTATION, convert, read_raster
from score_lightning.errors import UserError
from score_lightning.generation.pictures import save_aligned, save_grid

SIXTEEN = Depth(torch.uint16, 0, 65535)
FLOAT = Depth(torch.float32, -2.0, 6.0)


def numbers(*shape, dtype=np.uint16):
    rng = np.random.default_rng(0)
    return rng.uniform(-2, 6, shape).astype(dtype) if dtype == np.float32 else rng.integers(0, 65536, shape, dtype)


def read(path, shape):
    images = decoded(sources.read_pictures(path.parent, shape))
    return images.images[0].permute(1, 2, 0).numpy(), images.source.notes


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiff_files_keep_their_values_and_channels(order, channels, planes, dtype, tmp_path):
    pixels = numbers(6, 8, channels, dtype=dtype)
    written = pixels if planes == "contig" else np.moveaxis(pixels, 2, 0)
    options = {"planarconfig": planes, "photometric": "minisblack"} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", written if channels > 1 else pixels[..., 0], byteorder=order, **options)
    found, notes = read(tmp_path / "a.tif", Shape((6, 8), channels, depth=SIXTEEN if dtype == np.uint16 else FLOAT))
    assert found.dtype == dtype
    assert np.array_equal(found, pixels)
    assert notes == ()


def test_pages_of_a_tiff_file_are_channels_where_so_many_are_expected_and_frames_otherwise(tmp_path):
    pixels = numbers(5, 6, 8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    assert np.array_equal(read(tmp_path / "a.tif", Shape((6, 8), 5, depth=SIXTEEN))[0], np.moveaxis(pixels, 0, 2))
    first, notes = read(tmp_path / "a.tif", Shape((6, 8), 1, depth=SIXTEEN))
    assert np.array_equal(first[..., 0], pixels[0])
    assert notes == ("1 picture with several frames, of which the first one is taken",)


def test_a_tiff_file_whose_zero_is_white_is_turned_around(tmp_path):
    pixels = numbers(6, 8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "a.tif", Shape((6, 8), 1, depth=SIXTEEN))[0][..., 0], 65535 - pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_grids_of_16_bits_are_read_again_to_the_last_bit(channels, tmp_path):
    images = torch.from_numpy(numbers(1, channels, 6, 8))
    save_grid(images, tmp_path / "a.png", smallest=1, depth=SIXTEEN)
    found, _ = read(tmp_path / "a.png", Shape((8, 10), 3, depth=SIXTEEN))  # a white border of one pixel
    assert np.array_equal(found[1:-1, 1:-1], images[0].expand(3, -1, -1).permute(1, 2, 0).numpy())
    assert (found[0] == 65535).all()


def test_channels_stand_side_by_side_in_a_grid(tmp_path):
    images = torch.stack([torch.full((6, 8), 40 * c, dtype=torch.uint8) for c in range(5)])[None]
    with Image.open(save_grid(images, tmp_path / "a.png", smallest=1)) as picture:
        row = np.asarray(picture)[3, 1:-1, 0]
    assert row.tolist() == [40 * c for c in range(5) for _ in range(8)]


def test_rows_with_other_channels_stay_aligned_and_show_all_of_them(tmp_path):
    gray = torch.full((3, 1, 4, 8), 50, dtype=torch.uint8)
    five = torch.stack([torch.full((4, 8), 40 * c, dtype=torch.uint8) for c in range(5)]).expand(3, -1, -1, -1)
    with Image.open(save_aligned([gray, five], tmp_path / "a.png")) as picture:
        rows = np.asarray(picture)[..., 0]
    scale = rows.shape[1] // (1 + 2 * 41)  # two columns of 40 pixels, a white one around each
    first, second = rows[2 * scale], rows[7 * scale]
    assert second[scale : 41 * scale : 8 * scale].tolist() == [0, 40, 80, 120, 160]
    assert first[scale : 41 * scale : 8 * scale].tolist() == [50, 255, 255, 255, 255]


def test_values_of_a_range_are_shown_from_black_to_white(tmp_path):
    images = torch.tensor([-2.0, 2.0, 6.0, 6.0]).view(1, 1, 2, 2)
    save_grid(images, tmp_path / "a.png", smallest=1, depth=FLOAT)
    found, _ = read(tmp_path / "a.png", Shape(4, 3, depth=SIXTEEN))
    assert found[1:-1, 1:-1, 0].tolist() == [[0, 32768], [65535, 65535]]


def test_pictures_of_8_bits_are_scaled_by_257_to_16(tmp_path):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", Shape(4, 3, depth=SIXTEEN))[0], pixels.astype(int) * 257)


def test_a_fourth_channel_is_kept_where_it_is_expected_and_composited_where_it_is_opacity(tmp_path):
    pixels = np.full((4, 4, 4), 100, np.uint8)
    pixels[..., 3] = 51  # a fifth
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", Shape(4, 4))[0], pixels)
    color, notes = read(tmp_path / "a.png", Shape(4, 3, background="black", depth=SIXTEEN))
    assert (color == 20 * 257).all()
    assert "alpha channel" in notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_the_camera_says(orientation):
    pixels, exif, file = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8), Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    Image.fromarray(pixels).save(file, "png", exif=exif)
    from PIL import ImageOps

    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue()))))
    assert np.array_equal(read_raster(io.BytesIO(file.getvalue())).pixels[..., 0], expected)


def test_colors_are_turned_to_gray_as_pillow_does():
    pixels, file = numbers(16, 16, 3).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    gray = convert(read_raster(io.BytesIO(file.getvalue())), 1, Depth(), (255, 255, 255))[..., 0]
    assert np.abs(gray - np.asarray(Image.fromarray(pixels).convert("L"))).max() <= 0.51


@pytest.mark.parametrize("size", [(12, 20), (30, 8), (8, 8)])
def test_resizing_and_cropping_agree_with_pillow_within_its_rounding(size, tmp_path):
    x, y = np.meshgrid(np.arange(36), np.arange(24))
    pixels = np.stack([20 + 5 * x + y, 200 - 3 * x, 40 + 6 * y], 2).astype(np.uint8)  # smooth: nothing is clipped
    Image.fromarray(pixels).save(tmp_path / "a.png")
    raster, _ = read(tmp_path / "a.png", Shape(size, 3, depth=SIXTEEN))
    ordinary, notes = read(tmp_path / "a.png", Shape(size, 3))
    assert ordinary.shape == (*size, 3)
    assert np.abs(raster / 257 - ordinary).max() <= 1.0
    assert any("cropped to the central" in note for note in notes)


@pytest.mark.parametrize(
    ("pixels", "shape", "message"),
    [
        (numbers(4, 4, dtype=np.float32), Shape(4, 1), "set images.depth=float and images.input_range"),
        (numbers(4, 4, dtype=np.float32), Shape(4, 1, depth=SIXTEEN), "set images.depth=float"),
        (
            numbers(4, 4, dtype=np.float32),
            Shape(4, 1, depth=Depth(torch.float32, 0, 1)),
            "its pixels reach from -1.* images.input_range has floats from 0 to 1",
        ),
        (np.full((4, 4), np.nan, np.float32), Shape(4, 1, depth=FLOAT), "reach from nan to nan"),
        (numbers(4, 4), Shape(4, 1, depth=Depth(torch.uint16, 0, 4095)), "images.input_range has 16 bits from 0 to"),
        (numbers(4, 4).astype(np.int16), Shape(4, 1, depth=SIXTEEN), "its pixels are int16, whose white is not known"),
        (numbers(4, 4, 5), Shape(4, 3, depth=SIXTEEN), "it has 5 channels: set images.channels=5"),
    ],
)
def test_pixels_that_a_depth_does_not_hold_are_refused(pixels, shape, message, tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig" if pixels.ndim == 3 else None
    )
    with pytest.raises(UserError, match=f"a.tif cannot be read: .*{message}"):
        read(tmp_path / "a.tif", shape)
