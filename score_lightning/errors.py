"""The exceptions that end a command with one message, and exit codes."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

CLOSED = 141  # a shell's code after SIGPIPE
INTERRUPTED = 130  # a shell's code after Ctrl-C
RESUMABLE = 75  # sysexits.h: a temporary failure, try again


class UserError(Exception):
    """A mistake in a command, a configuration or a file: shown as one message, without traceback, exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(_shorten(message))


class StopRequested(Exception):  # noqa: N818 - no error
    """A run that was asked to stop and has saved its state: one message, exit code 75 (it can be resumed)."""


class SharedUserError(UserError):
    """A mistake that every process raises; only the first one reports it."""


class NonFiniteError(SharedUserError):
    """A loss or gradient that is infinite or not a number."""


def missing_package(what: str, package: str, extra: str) -> UserError:
    """The answer where something needs a package of an extra of pyproject.toml."""
    return UserError(f"{what} needs the package {package}: pip install 'score_lightning[{extra}]'")


def is_of_file(error: OSError) -> bool:
    """Whether the system refused to read or write a file; others, of sockets or processes, are faults of a program."""
    others = ConnectionError | ChildProcessError | ProcessLookupError
    return error.errno is not None and not isinstance(error, others)


def explain(error: OSError) -> str:
    """What went wrong with a file, as text."""
    what = _shorten(f" ({error.filename})") if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"{'the disk is full' if full else error.strerror or error}{what}"


def report(error: OSError) -> str:
    """The message of a command that a file ends: what went wrong, and what is not lost."""
    return f"{explain(error)}: complete files are not lost"


def _shorten(message: str) -> str:
    """The message, of whose words those that nobody would read show their beginning and their length only."""
    return re.sub(r"\S{1000,}", lambda word: f"{word[0][:200]}… ({len(word[0]):,} characters)", message)


@contextmanager
def mistakes_in(section: str, *more: type[Exception]) -> Iterator[None]:
    """Turns what an object says of its arguments into a message that names their section.

    Raises:
        UserError: for a ValueError, or one of the other types.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (ValueError, *more)):
            raise
        raise UserError(f"{section}: {error}") from error
