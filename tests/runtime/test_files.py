"""Files are whole or not there, and known by what is in them."""

import hashlib
import os
import tempfile

import pytest
import torch
from torch import nn

from score_lightning.errors import UserError
from score_lightning.runtime.files import (
    atomic_file,
    atomic_path,
    naming,
    output_folder,
    sha256_of_file,
    sha256_of_folder,
    sha256_of_state,
    write_text,
)


def test_a_file_takes_its_place_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "new/a.txt"
    with atomic_file(path) as file:
        file.write(b"a")
        assert not path.exists()
        assert [p.name for p in path.parent.iterdir()] == [f".a.txt.{os.getpid()}"]
    write_text(path, "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    assert list(path.parent.iterdir()) == [path]


def break_off(path, failure):
    with naming(path), atomic_file(path) as file:
        file.write(b"half of it")
        raise failure


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    for failure in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(failure)):
            break_off(path, failure)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_not_written_into(tmp_path):
    whole, path = tmp_path / "step_1.ckpt", tmp_path / "last.ckpt"
    whole.write_text("whole")
    (tmp_path / f".last.ckpt.{os.getpid()}").hardlink_to(whole)
    write_text(path, "other")
    assert (whole.read_text(), path.read_text()) == ("whole", "other")


def test_a_folder_takes_the_place_of_an_empty_one_only(tmp_path):
    (tmp_path / "out").mkdir()
    with atomic_path(tmp_path / "out") as partial:
        partial.mkdir()
        (partial / "a").write_text("a")
    assert (tmp_path / "out/a").read_text() == "a"
    with pytest.raises(OSError, match="not empty"), atomic_path(tmp_path / "out") as partial:
        partial.mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_for_results_is_made_and_changes_nothing_in_it(tmp_path):
    with output_folder(tmp_path / "a/b", ["c.txt"]) as folder:
        assert list(folder.iterdir()) == []
        (folder / "c.txt").write_text("before", encoding="utf-8")
        os.utime(folder / "c.txt", (1, 1))
    with output_folder(folder, ["c.txt", "d.txt"]):
        assert [path.name for path in folder.iterdir()] == ["c.txt"]
    assert (folder / "c.txt").read_text(encoding="utf-8") == "before"
    assert (folder / "c.txt").stat().st_mtime == 1


def stop_in(folder, made=None):
    with output_folder(folder):
        if made:
            (folder / made).write_text("text", encoding="utf-8")
        raise KeyboardInterrupt


def test_a_folder_for_results_is_removed_where_nothing_was_written(tmp_path):
    (tmp_path / "mine").mkdir()
    for folder, made in ((tmp_path / "a/b", None), (tmp_path / "mine", None), (tmp_path / "kept/d", "e")):
        with pytest.raises(KeyboardInterrupt):
            stop_in(folder, made)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} == {"mine", "kept", "kept/d", "kept/d/e"}


def test_a_folder_that_takes_no_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("text", encoding="utf-8")
    (tmp_path / "out/a.png").mkdir(parents=True)
    for folder, message in [
        (tmp_path / "file", "file cannot be written: File exists"),
        (tmp_path / "file/x", "file/x cannot be written: Not a directory"),
        (tmp_path / ("x" * 300), "x cannot be written: File name too long"),
        (tmp_path / "out", "out/a.png cannot be written: Is a directory"),
    ]:
        with pytest.raises(UserError, match=message), output_folder(folder, ["a.png"]):
            pass

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with (
        pytest.raises(UserError, match="new/b cannot be written: No space left on device"),
        output_folder(tmp_path / "new", ["b"]),
    ):
        pass
    assert not (tmp_path / "new").exists()


def test_a_failure_to_write_names_the_file(tmp_path):
    for failure in (OSError(28, "No space left on device"), OSError(5, "x", str(tmp_path / f".a.{os.getpid()}"))):
        with pytest.raises(OSError, match=r"/a'") as raised:
            break_off(tmp_path / "a", failure)
        assert raised.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match=r"^no number$"):
        break_off(tmp_path / "a", OSError("no number"))


def test_hashes_are_sha256_of_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c").write_bytes(b"2")
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"1", b"2"))
    assert sha256_of_file(tmp_path / "a") == one
    assert sha256_of_folder(tmp_path) == hashlib.sha256(f"a {one}\nb/c {two}\n".encode()).hexdigest()


def test_hash_of_a_network_changes_with_its_weights():
    network = nn.Linear(2, 2)
    before = sha256_of_state(network.state_dict())
    with torch.no_grad():
        network.weight[0, 0] += 1
    assert sha256_of_state(network.state_dict()) != before


def test_hash_of_a_state_is_that_of_caches_on_disk():
    state = {"a.weight": torch.arange(6, dtype=torch.float32).view(2, 3).T, "n": torch.tensor(7)}
    assert sha256_of_state(state) == "a872fa15e3d58342e97aca4518cdbb01f7cb969cf278f1990bc643fa034c2b54"
