"""The exceptions that end a command with one message, and exit codes."""

import errno

INTERRUPTED = 130  # a shell's code after Ctrl-C
RESUMABLE = 75  # sysexits.h: a temporary failure, try again


class UserError(Exception):
    """A mistake in a command, a configuration or a file: shown as one message, without traceback, exit code 2."""


class StopRequested(Exception):  # noqa: N818 - no error
    """A run that was asked to stop and has saved its state: one message, exit code 75 (it can be resumed)."""


class SharedUserError(UserError):
    """A mistake that every process raises; only the first one reports it."""


class NonFiniteError(SharedUserError):
    """A loss or gradient that is infinite or not a number."""


def explain(error: OSError) -> str:
    """What went wrong with a file, as text."""
    what = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{what}: complete files are not lost"
    return f"{error.strerror or error}{what}"
