"""What the entry points share: key=value words, --help, and one message with exit code 2 for a user's mistake."""

import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from score_lightning.config import parse_override
from score_lightning.errors import INTERRUPTED, RESUMABLE, SharedUserError, StopRequested, UserError, explain
from score_lightning.runtime.startup import is_first, keep_memory


def run(main: Callable[[Sequence[str]], None], usage: Callable[[], str]) -> None:
    """Runs an entry point with the words of the command line and exits.

    With 0; 2 after a user's mistake; 75 where a signal stopped a run that can go on; 130 after Ctrl-C. Of several
    processes the first has the last word, since its launcher takes another one's code for a crash.
    """
    words = sys.argv[1:]
    if any(word in ("--help", "-h", "help") for word in words):
        print(usage())
        sys.exit(0)
    keep_memory()
    try:
        main(words)
    except UserError as error:
        if isinstance(error, SharedUserError) and not is_first():
            sys.exit(0)
        if is_first() or _connected():  # before, all have the same to say
            print(f"score_lightning: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"score_lightning: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    except StopRequested as stopped:
        if not is_first():
            sys.exit(0)
        print(f"stopped: {stopped}. The same command with resume=auto goes on", file=sys.stderr)
        sys.exit(RESUMABLE)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        _leave_processes()


def _connected() -> bool:
    """Whether this process is connected with others."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _leave_processes() -> None:
    """Ends the connection between processes: its threads, if they live on, can abort the interpreter as it exits."""
    if _connected():
        sys.modules["torch.distributed"].destroy_process_group()


def split_arguments(
    words: Sequence[str], keys: Mapping[str, type], required: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The values of a command's own keys, and the other words, which change the configuration.

    Args:
        words: key=value words.
        keys: the command's own keys with the types of their values.
        required: those of them that must be there.

    Raises:
        UserError: when a word is no key=value, a value is of another type, or a required key is missing.
    """
    own: dict[str, Any] = {}
    rest = []
    for word in words:
        key, value = parse_override(word)
        if key not in keys:
            rest.append(word)
        elif keys[key] is str:
            own[key] = word.partition("=")[2]
        elif type(value) is not keys[key]:
            raise UserError(f"{key} takes a value of type {keys[key].__name__}, got {value!r}")
        else:
            own[key] = value
    missing = [key for key in required if key not in own]
    if missing:
        raise UserError(f"{missing[0]}=… is missing (--help lists the keys)")
    return own, rest
