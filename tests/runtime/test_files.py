"""Files are whole or not there, and known by what is in them."""

import hashlib
import os

import pytest
import torch
from torch import nn

from score_lightning.runtime.files import (
    atomic_file,
    atomic_path,
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
    with atomic_file(path) as file:
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
