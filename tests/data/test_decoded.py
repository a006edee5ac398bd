"""Decoded pictures: once on a machine, in a file that processes share."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import support
import torch
from PIL import Image

from score_lightning.data import decoded, sources
from score_lightning.data.decoded import decode_split
from score_lightning.data.files import ImageFiles
from score_lightning.data.images import LazyImageSet
from score_lightning.data.pictures import Shape
from score_lightning.runtime import memory


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def equal(a, b):
    assert torch.equal(a[torch.arange(len(a))], b[torch.arange(len(b))])
    assert torch.equal(a.labels, b.labels)


def fail(*_, **__):
    raise AssertionError("decoded again")


def test_pictures_are_decoded_once(pictures, cache, monkeypatch):
    Image.new("RGBA", (8, 8)).save(pictures / "dog/clear.png")
    lazy = sources.folder(Shape(8, 3), str(pictures), 0.3)
    train, held = decode_split(*lazy)
    for a, b in zip(lazy, (train, held), strict=True):
        equal(a, b)
    monkeypatch.setattr(ImageFiles, "decode", fail)
    again, other = decode_split(*sources.folder(Shape(8, 3), str(pictures), 0.5))  # another part held out
    assert sorted(map(bytes, torch.cat([again.images, other.images]).numpy())) == sorted(
        map(bytes, torch.cat([train.images, held.images]).numpy())
    )
    assert again.source == train.source  # what was said of them is said again
    assert any("alpha channel" in note for note in again.source.notes)
    assert len(list(cache.glob("decoded-*.npy"))) == 1


def test_both_parts_are_decoded_at_once_where_there_is_no_cache(pictures, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path / "file/cache"))
    plain, count = ImageFiles.decode, []
    monkeypatch.setattr(ImageFiles, "decode", lambda *a: count.append(len(a[1])) or plain(*a))
    lazy = sources.folder(Shape(8, 3), str(pictures), 0.3)
    train, held = decode_split(*lazy)
    assert sum(count) == 6
    monkeypatch.undo()
    for a, b in zip(lazy, (train, held), strict=True):
        equal(a, b)


@pytest.mark.parametrize("damage", ["cut", "empty", "other shape"])
def test_a_damaged_file_is_written_anew(damage, pictures, cache):
    lazy = sources.read_pictures(pictures, Shape(8, 3))
    support.decoded(lazy)
    (path,) = cache.glob("decoded-*.npy")
    content = path.read_bytes()
    path.unlink()  # other processes keep theirs
    path.write_bytes(content[:200] if damage == "cut" else b"")
    if damage == "other shape":
        np.save(path, np.zeros((2, 2), np.uint8))
    equal(support.decoded(lazy), lazy)
    assert path.read_bytes() == content


def test_pictures_of_two_folders_are_not_taken_for_each_other(tmp_path):
    decoded_levels = []
    for level in (10, 200):
        (tmp_path / str(level)).mkdir()
        Image.new("L", (8, 8), level).save(tmp_path / str(level) / "a.bmp")
        os.utime(tmp_path / str(level) / "a.bmp", ns=(0, 0))  # as reproducible archives have it
        decoded_levels.append(int(support.decoded(sources.read_pictures(tmp_path / str(level), Shape(8, 1)))[:].max()))
    assert decoded_levels == [10, 200]


@pytest.mark.parametrize("change", ["picture", "size", "background", "name"])
def test_other_pictures_or_shapes_are_decoded_anew(change, pictures, cache):
    first = support.decoded(sources.read_pictures(pictures, Shape(8, 3))).images
    shape = Shape(6 if change == "size" else 8, 3, background="red" if change == "background" else "white")
    path = pictures / "dog/e.bmp"
    if change == "picture":  # of the same size in bytes
        Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
        os.utime(path, ns=(1, 1))
    if change == "name":
        path.rename(pictures / "dog/other.bmp")
    second = support.decoded(sources.read_pictures(pictures, shape))
    equal(second, sources.read_pictures(pictures, shape))
    assert len(list(cache.glob("decoded-*.npy"))) == 2
    assert torch.equal(first, second.images) == (change == "background")


def test_both_parts_share_the_decoded_pictures(pictures, cache):
    _parts = decode_split(*sources.folder(Shape(8, 3), str(pictures), 0.3))
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("this system does not list what is mapped")
    lines = [line for line in maps.read_text(encoding="utf-8").splitlines() if str(cache / "decoded-") in line]
    assert lines  # pages of the file, which the system holds once for all processes
    assert all(line.split()[1] == "r--s" for line in lines)


@pytest.mark.usefixtures("forked")
def test_processes_that_start_together_decode_once(pictures, cache, tmp_path):
    program = (
        "import sys\nfrom pathlib import Path\nfrom score_lightning.data import sources, decoded\n"
        "from score_lightning.data.files import ImageFiles\nfrom score_lightning.data.pictures import Shape\n"
        "plain = ImageFiles.decode\n"
        "def counted(self, indices, remarks=None):\n"
        "    Path(sys.argv[2], f'{len(list(Path(sys.argv[2]).iterdir()))}-{sys.argv[3]}').touch()\n"
        "    return plain(self, indices, remarks)\n"
        "ImageFiles.decode = counted\n"
        "pictures = sources.read_pictures(Path(sys.argv[1]), Shape(8, 3))\n"
        "decoded.decode_split(pictures, pictures)\n"
    )
    (tmp_path / "count").mkdir()
    (tmp_path / "program.py").write_text(program)
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), str(pictures), str(tmp_path / "count"), str(i)],
            env={**os.environ, "SCORE_LIGHTNING_CACHE": str(cache)},
        )
        for i in range(3)
    ]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    assert len(list((tmp_path / "count").iterdir())) == 1


def test_a_disk_with_too_little_room_is_left_alone(pictures, cache, monkeypatch, capsys):
    lazy = sources.read_pictures(pictures, Shape(8, 3))
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: SimpleNamespace(free=9))
    equal(support.decoded(lazy), lazy)
    assert not list(cache.glob("*.npy"))
    said = capsys.readouterr().out
    assert "decoded pictures are more than half of the 0.0 GiB free" in said
    assert "pictures are decoded into the memory of each process" in said


def test_what_neither_disk_nor_memory_holds_is_decoded_by_batch(pictures, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SCORE_LIGHTNING_CACHE", str(tmp_path / "file/cache"))
    Image.new("RGBA", (8, 8)).save(pictures / "dog/clear.png")
    lazy = sources.read_pictures(pictures, Shape(8, 3))
    needed = lazy.files.decoded_bytes
    monkeypatch.setattr(decoded, "available_bytes", lambda: 4 * needed)
    assert not isinstance(support.decoded(lazy, processes=2), LazyImageSet)
    by_batch = support.decoded(lazy, processes=3)
    assert isinstance(by_batch, LazyImageSet)
    equal(by_batch, lazy)
    assert any("1 picture with an alpha channel" in note for note in by_batch.source.notes)
    assert "pictures are decoded batch by batch" in capsys.readouterr().out


def test_a_zips_directory_is_read_once(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(file)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(20):
            archive.writestr(f"{i}.png", file.read_bytes())
    images, opened = sources.read_pictures(tmp_path / "x.zip", Shape(8, 1)), []
    plain = zipfile.ZipFile.__init__
    monkeypatch.setattr(zipfile.ZipFile, "__init__", lambda *a, **k: opened.append(1) or plain(*a, **k))
    for _ in range(5):
        images[torch.arange(20)]
    list(images.files.contents(range(20)))
    assert len(opened) <= 1


def test_a_zip_that_was_written_anew_is_read_anew(tmp_path):
    for level in (10, 20):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(tmp_path / "a.png")
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.write(tmp_path / "a.png", "a.png")
        os.utime(tmp_path / "x.zip", ns=(level, level))
        assert (sources.read_pictures(tmp_path / "x.zip", Shape(8, 1))[:] == level).all()


def test_data_are_known_by_names_and_sizes(pictures, tmp_path):
    content = sources.read_pictures(pictures, Shape(8, 3)).source.content
    pictures.rename(tmp_path / "moved")
    assert sources.read_pictures(tmp_path / "moved", Shape(4, 1)).source.content == content
    with (tmp_path / "moved/cat/a.png").open("ab") as file:
        file.write(b"more")
    assert sources.read_pictures(tmp_path / "moved", Shape(8, 3)).source.content != content


def write_group(root, limit, used, cached, version):
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    root.mkdir(parents=True)
    for name, text in zip((*names, "memory.stat"), (limit, used, f"rss 1\ninactive_file {cached}\n"), strict=True):
        (root / name).write_text(str(text))


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_what_its_control_groups_leave(version, tmp_path, monkeypatch):
    line = "0::/job/step" if version == 2 else "4:memory:/job/step"
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text(f"9:name=systemd:/x\n{line}\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    root = tmp_path / "groups" / ("memory" if version == 1 else "")
    write_group(root / "job", 5_000_000, 2_000_000, 500_000, version)
    write_group(root / "job/step", "max", 2_000_000, 0, version)
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "STATE", tmp_path)
    assert memory.available_bytes() == 3_500_000
    (root / "job/memory.stat").unlink()
    assert memory.available_bytes() == 8000 * 1024
