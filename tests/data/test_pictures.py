"""From picture files to gray levels: depth, transparency, palettes, orientation."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support import decoded

from score_lightning.data import sources
from score_lightning.data.pictures import Shape, suffixes
from score_lightning.errors import UserError

LEVELS = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def read(path, shape=None):
    """The one picture of a folder, uint8 (C, H, W), and what is said of it."""
    images = decoded(sources.read_pictures(path.parent, shape or Shape(8, 1)))
    return images.images[0].numpy(), images.source.notes


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.png", "<u2"), ("a.tiff", "<u2"), ("a.tiff", ">u2"), ("a.pgm", "<u2"), ("a.jp2", "<u2")]
)
def test_16_bits_are_scaled_by_257(name, dtype, tmp_path):
    Image.fromarray((LEVELS * 257.0).astype(dtype)).save(tmp_path / name)
    pixels, notes = read(tmp_path / name)
    assert np.array_equal(pixels[0], LEVELS)
    assert notes == ("1 picture of more than 8 bits, reduced to 8 (images.depth=16 keeps them)",)
    color, _ = read(tmp_path / name, Shape(8, 3))
    assert np.array_equal(color, np.stack([LEVELS] * 3))


def test_levels_between_are_rounded_to_the_nearest(tmp_path):
    levels = np.array([[0, 128, 129, 65_407], [257 * 7 + 128, 257 * 7 + 129, 65_406, 65_535]] * 2, np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    expected = np.array([[0, 0, 1, 255], [7, 8, 254, 255]] * 2)
    assert np.array_equal(read(tmp_path / "a.png", Shape(4, 1))[0][0], expected)


@pytest.mark.parametrize(("dtype", "what"), [(np.int32, "signed integers"), (np.float32, "floats")])
def test_depths_without_a_known_white_are_refused(dtype, what, tmp_path):
    Image.fromarray(LEVELS.astype(dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match=rf"a.tiff cannot be read: its pixels are {what}.* save it with 8 or 16 bits"):
        read(tmp_path / "a.tiff")


def test_tiffs_of_12_bits_are_scaled_by_4095(tmp_path):
    levels = np.array([[0, 4095], [2048, 16]], np.uint16)
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in levels.tolist())
    entries = [(256, 4, 2), (257, 4, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 2)]
    entries.append((279, 4, len(packed)))
    table = b"".join(
        tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, kind, value in entries
    )
    head = b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed
    (tmp_path / "a.tiff").write_bytes(head + len(entries).to_bytes(2, "little") + table + bytes(4))
    assert read(tmp_path / "a.tiff", Shape(2, 1))[0][0].tolist() == [[0, 255], [128, 1]]


@pytest.mark.parametrize("background", ["white", "#204060"])
def test_transparent_pixels_show_the_background(background, tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    rgba[:4, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    behind = np.array([255] * 3 if background == "white" else [0x20, 0x40, 0x60])
    pixels, notes = read(tmp_path / "a.png", Shape(8, 3, background=background))
    share = rgba[..., 3:] / 255
    expected = (share * rgba[..., :3] + (1 - share) * behind).transpose(2, 0, 1)
    assert np.abs(pixels - expected).max() <= 1
    assert (pixels[:, :4] == behind[:, None, None]).all()  # nothing of what was hidden there
    assert notes == (f"1 picture with an alpha channel, composited on images.background={background}",)


@pytest.mark.parametrize("mode", ["LA", "P", "L", "I;16"])
def test_every_kind_of_transparency_is_seen(mode, tmp_path):
    image = Image.fromarray(LEVELS)
    options = {}
    if mode == "LA":
        image.putalpha(Image.fromarray(np.where(LEVELS == 0, 0, 255).astype(np.uint8)))
    elif mode == "I;16":
        image, options = Image.fromarray((LEVELS * 257.0).astype(np.uint16)), {"transparency": 0}
    else:
        image, options = image.convert(mode), {"transparency": 0}
    image.save(tmp_path / "a.png", **options)
    pixels, notes = read(tmp_path / "a.png")
    assert np.array_equal(pixels[0], np.where(LEVELS == 0, 255, LEVELS))
    assert "alpha channel" in "".join(notes)


def test_only_the_first_frame_is_taken_and_said_so(tmp_path):
    frames = [Image.new("L", (8, 8), level) for level in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    pixels, notes = read(tmp_path / "a.gif")
    assert (pixels == 10).all()
    assert notes == ("1 picture with several frames, of which the first one is taken",)


def test_what_is_cropped_or_enlarged_is_said(tmp_path):
    Image.fromarray(LEVELS[:, :6]).save(tmp_path / "a.png")
    assert (
        read(tmp_path / "a.png", Shape(12, 1))[1]
        == (
            "1 picture smaller than 12 x 12 pixels, enlarged",
            "1 picture not square, cropped to the central square",
        )[::-1]
    )


def test_photos_are_turned_as_their_camera_says(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 270 degrees
    for name, levels in (("8/a.png", LEVELS), ("16/a.png", (LEVELS * 257.0).astype(np.uint16))):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(levels).save(tmp_path / name, exif=exif)
        assert np.array_equal(read(tmp_path / name)[0][0], np.rot90(LEVELS, -1))


def test_everything_that_pillow_reads_is_a_picture(tmp_path):
    assert {".jfif", ".avif", ".jp2", ".png", ".jpeg", ".tga", ".qoi"} <= set(suffixes())
    assert not {".eps", ".mpg", ".hdf", ".h5"} & set(suffixes())
    for name in ("a.jfif", "b.avif", "c.jp2", "d.png", "e.TGA", "f.ico"):
        Image.fromarray(np.stack([LEVELS] * 3, 2)).resize((16, 16)).save(tmp_path / name)
    assert len(sources.read_pictures(tmp_path, Shape(8, 3))[:]) == 6


def test_text_in_a_picture_is_no_part_of_it(tmp_path):
    information = PngImagePlugin.PngInfo()
    information.add_text("Title", "x" * 100)
    Image.fromarray(LEVELS).save(tmp_path / "a.png", pnginfo=information)
    pixels, notes = read(tmp_path / "a.png")
    assert np.array_equal(pixels[0], LEVELS)
    assert notes == ()


def test_tiffs_whose_white_is_0_are_inverted(tmp_path):
    deep = Image.fromarray((LEVELS * 257.0).astype(np.uint16))
    deep.save(tmp_path / "a.tiff", tiffinfo={262: 0})
    content = bytearray((tmp_path / "a.tiff").read_bytes())
    with Image.open(tmp_path / "a.tiff") as image:
        assert image.tag_v2[262] in (0, 1)
        place = content.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")  # tag 262, one short number
    content[place + 8] = 0
    (tmp_path / "a.tiff").write_bytes(content)
    assert np.array_equal(read(tmp_path / "a.tiff")[0][0], 255 - LEVELS)


def test_colors_of_16_bits_are_said_to_be_reduced(tmp_path):
    pixels = np.stack([LEVELS] * 3, 2).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    color, notes = read(tmp_path / "a.png", Shape(8, 3))
    assert np.array_equal(color, np.stack([LEVELS] * 3))
    assert notes == ("1 picture of more than 8 bits, reduced to 8 (images.depth=16 keeps them)",)


@pytest.mark.parametrize("mode", ["LA", "P", "I;16"])
def test_grays_of_every_kind_are_gray(mode, tmp_path):
    image = Image.fromarray((LEVELS * 257.0).astype(np.uint16)) if mode == "I;16" else Image.fromarray(LEVELS)
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "a.png")
    assert sources.read_pictures(tmp_path).shape == (1, 8, 8)
    Image.new("RGB", (8, 8), (1, 2, 3)).convert("P").save(tmp_path / "b.png")
    assert sources.read_pictures(tmp_path).shape == (3, 8, 8)
