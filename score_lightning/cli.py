"""What commands share: key=value arguments, --help, and one message with exit code 2 for a user's mistake."""

import io
import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from score_lightning.config import parse_override, split_override
from score_lightning.errors import (
    CLOSED,
    INTERRUPTED,
    RESUMABLE,
    SharedUserError,
    StopRequested,
    UserError,
    is_of_file,
    report,
)
from score_lightning.runtime.startup import end_with_launcher, is_first, keep_memory


def run(
    main: Callable[[Sequence[str]], None], usage: Callable[[], str], arguments: Sequence[str] | None = None
) -> None:
    """Runs a command with arguments, by default those of the command line, and exits.

    The exit code is 0; 2 after a user's mistake, or where the system does not write a file; 75 where a signal stopped
    a run that can be resumed; 130 after Ctrl-C; 141 where nobody reads what is printed any more.
    Of several processes only the first one's code counts, since its launcher takes that of another for a crash.
    """
    _print_anything()
    try:
        _start(main, usage, sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        if isinstance(error, SharedUserError) and not is_first():
            sys.exit(0)
        if is_first() or _connected():  # before, all have the same to say
            print(f"score_lightning: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if _closes_output() and isinstance(error, BrokenPipeError):
            sys.exit(CLOSED)
        if not is_of_file(error):
            raise
        print(f"score_lightning: {report(error)}", file=sys.stderr)
        sys.exit(2)
    except StopRequested as stopped:
        if not is_first():
            sys.exit(0)
        print(f"stopped: {stopped}. Resume with the same command and resume=auto", file=sys.stderr)
        sys.exit(RESUMABLE)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        _leave_processes()


def _start(main: Callable[[Sequence[str]], None], usage: Callable[[], str], arguments: Sequence[str]) -> None:
    if any(argument in ("--help", "-h", "help") for argument in arguments):
        print(usage(), flush=True)
        sys.exit(0)
    end_with_launcher()
    keep_memory()
    main(arguments)
    sys.stdout.flush()  # a failure is no one's to catch later


def _print_anything() -> None:
    """Lets the streams print characters that the terminal does not know, and names that are no text, as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _closes_output() -> bool:
    """Whether nobody reads what is printed, or it cannot be written; it is dropped then: Python tries as it exits."""
    try:
        sys.stdout.flush()
        if not hasattr(select, "poll"):  # on Windows the flush says it
            return False
        poll = select.poll()
        poll.register(sys.stdout, 0)
        return any(state & select.POLLERR for _, state in poll.poll(0))
    except OSError:
        with suppress(OSError):  # a stream without a number
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True


def _connected() -> bool:
    """Whether this process is connected with others."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _leave_processes() -> None:
    """Ends the connection between processes: its threads, if they live on, can abort the interpreter as it exits."""
    if _connected():
        sys.modules["torch.distributed"].destroy_process_group()


def split_arguments(
    arguments: Sequence[str], keys: Mapping[str, type], required: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """(options of a command, overrides of the configuration) among key=value arguments.

    Args:
        arguments: key=value.
        keys: of the command's options, with the types of their values.
        required: those that must be given.

    Raises:
        UserError: when an argument is not key=value, a value is of another type, or a required key is missing.
    """
    options: dict[str, Any] = {}
    overrides = []
    for argument in arguments:
        key, text = split_override(argument)
        if key not in keys:
            overrides.append(argument)
            continue
        if not text:
            raise UserError(f"{key}= is empty; leave it out or give a value")
        options[key] = text if keys[key] is str else parse_override(argument)[1]
        if keys[key] is float and type(options[key]) is int and abs(options[key]) < 1e300:
            options[key] = float(options[key])
        if type(options[key]) is not keys[key]:
            raise UserError(f"{key} takes a value of type {keys[key].__name__}, got {text!r}")
    missing = [key for key in required if key not in options]
    if missing:
        raise UserError(f"{missing[0]}=… is missing (--help lists the keys)")
    return options, overrides
