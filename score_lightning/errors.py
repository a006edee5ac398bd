"""The exceptions that end a command with one message."""


class UserError(Exception):
    """A mistake in a command, a configuration or a file: shown as one message, without traceback, exit code 2."""


class Stopped(Exception):  # noqa: N818 - no error
    """A run that was asked to stop, has saved its state and can go on: one message, exit code 75 (try again)."""


class NotFinite(UserError):  # noqa: N818 - what the numbers are
    """A loss or a gradient that is infinite or not a number."""
