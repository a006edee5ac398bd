"""The one exception for a user's mistake."""


class UserError(Exception):
    """A mistake in a command, a configuration or a file: shown as one message, without traceback, exit code 2."""
