"""The exceptions that end a command with one message, and exit codes."""

import errno

INTERRUPTED = 130  # a shell's code after Ctrl-C
RESUMABLE = 75  # sysexits.h: a temporary failure, try again


class UserError(Exception):
    """A mistake in a command, a configuration or a file: shown as one message, without traceback, exit code 2."""


class StopRequested(Exception):  # noqa: N818 - no error
    """A run that was asked to stop, has saved its state and can go on: one message, exit code 75 (try again)."""


class SharedUserError(UserError):
    """One that every process raises; the first one tells it."""


class NonFiniteError(SharedUserError):
    """A loss or a gradient that is infinite or not a number."""


def explain(error: OSError) -> str:
    """What went wrong with a file, in words."""
    what = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{what}: nothing that was whole is lost"
    return f"{error.strerror or error}{what}"
