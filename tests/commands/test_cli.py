"""What the entry points share."""

import ctypes
import errno

import pytest

from score_lightning import cli
from score_lightning.errors import UserError, report
from score_lightning.runtime import startup

TRIM, MMAP = -1, -3  # malloc.h


@pytest.fixture
def mallopt(monkeypatch):
    """The calls of glibc's mallopt, which takes values up to `largest`."""
    for key in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(key, raising=False)

    class Library:
        calls, largest = [], 2**40

        def mallopt(self, option, value):
            self.calls.append((option, value))
            return int(value <= self.largest)

    library = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return library


def test_freed_memory_is_kept_but_for_large_arrays(mallopt):
    startup.keep_memory()
    assert mallopt.calls == [(MMAP, 2**26), (TRIM, 2**30)]


def test_an_older_library_keeps_what_it_can(mallopt):
    mallopt.largest = 2**25
    startup.keep_memory()
    assert mallopt.calls == [(MMAP, 2**26), (MMAP, 2**25), (TRIM, 2**30)]


def test_a_library_that_takes_neither_is_left_as_it_is(mallopt):
    mallopt.largest = 0
    startup.keep_memory()
    assert TRIM not in dict(mallopt.calls)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_MAX_", "0"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
    ],
)
def test_settings_of_the_environment_win(mallopt, monkeypatch, key, value):
    monkeypatch.setenv(key, value)
    startup.keep_memory()
    assert mallopt.calls == []


def test_other_libraries_are_left_alone(monkeypatch, mallopt):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    startup.keep_memory()
    assert mallopt.calls == []


def test_an_empty_option_is_refused():
    with pytest.raises(UserError, match="out= is empty"):
        cli.split_arguments(["out="], {"out": str})


def test_a_message_does_not_quote_words_without_end():
    long = "9" * 5000
    assert str(UserError(f"unknown sampler '{long}': there are a, b")) == (
        f"unknown sampler '{long[:199]}… (5,003 characters) there are a, b"
    )
    assert str(UserError("x" * 999)) == "x" * 999
    refused = OSError(errno.ENAMETOOLONG, "File name too long", long)
    assert report(refused) == f"File name too long ({long[:199]}… (5,002 characters): complete files are not lost"
