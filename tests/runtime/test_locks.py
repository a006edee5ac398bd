"""One process at a time works in a folder, with the locks of Linux and with those of Windows."""

import errno
import fcntl
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from score_lightning.runtime import locks

HOLD = """
import sys
from pathlib import Path
from score_lightning.runtime.locks import lock
lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


def windows_locking(descriptor, mode, count):
    """What msvcrt.locking does, by the locks of this system: they are of one process, as they are there."""
    assert (mode, count) == (2, 1)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error


@pytest.fixture(params=["linux", "windows"])
def system(request, monkeypatch):
    if request.param == "windows":
        monkeypatch.setattr(locks, "fcntl", None)
        monkeypatch.setattr(locks, "msvcrt", SimpleNamespace(locking=windows_locking, LK_NBLCK=2))
    return request.param


def test_a_locked_folder_is_refused_until_it_is_unlocked(system, tmp_path):
    held = locks.lock(tmp_path)
    with pytest.raises(BlockingIOError):
        locks.lock(tmp_path, patience=0.0)
    os.close(held)
    os.close(locks.lock(tmp_path, patience=0.0))
    assert [path.name for path in tmp_path.iterdir()] == ([".lock"] if system == "windows" else [])


@pytest.mark.usefixtures("system")
def test_folders_are_locked_each_by_itself(tmp_path):
    (tmp_path / "other").mkdir()
    for descriptor in [locks.lock(tmp_path, 0.0), locks.lock(tmp_path / "other", 0.0)]:
        os.close(descriptor)


def test_a_killed_process_leaves_nothing_locked(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(BlockingIOError):
        locks.lock(tmp_path, patience=0.0)
    holder.kill()
    holder.communicate()
    os.close(locks.lock(tmp_path, patience=0.0))


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), None])
def test_without_locks_nothing_is_locked(error, tmp_path, monkeypatch):
    def refuse(*_):
        raise error

    monkeypatch.setattr(locks, "fcntl", error and SimpleNamespace(flock=refuse, LOCK_EX=2, LOCK_NB=4))
    for descriptor in [locks.lock(tmp_path, 0.0), locks.lock(tmp_path, 0.0)]:
        os.close(descriptor)
