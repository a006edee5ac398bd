"""What the entry points share: key=value words, --help, and one message with exit code 2 for a user's mistake."""

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from score_lightning.config import parse_word
from score_lightning.errors import Agreed, Stopped, UserError, explain

GOES_ON = 75  # sysexits.h: a temporary failure, try again


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
        if isinstance(error, Agreed) and not is_first():
            sys.exit(0)
        if is_first() or _connected():  # before, all have the same to say
            print(f"score_lightning: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"score_lightning: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        if not is_first():
            sys.exit(0)
        print(f"stopped: {stopped}. The same command with resume=auto goes on", file=sys.stderr)
        sys.exit(GOES_ON)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    finally:
        _leave_processes()


def keep_memory() -> None:
    """Lets the C library keep what is freed, for what comes next.

    glibc gives each large array back to the system when it is freed, and the next one of the same size is new pages,
    which the system clears: up to a fifth of a training step on the CPU. Its own settings in the environment win.
    """
    trim, mmap = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    own = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_"} & set(os.environ)
    if own or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    # before 2.35 it takes 32 MiB at most; the other option alone would keep it from growing by itself
    if mallopt(mmap, 2**30) or mallopt(mmap, 2**25):
        mallopt(trim, 2**30)


def is_first() -> bool:
    """Whether this is the first of the processes."""
    if "RANK" in os.environ:  # torchrun's
        return os.environ["RANK"] == "0"
    # Lightning's own processes have LOCAL_RANK, and SLURM's SLURM_PROCID of their parent
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0" == os.environ.get("NODE_RANK", "0")


def _connected() -> bool:
    """Whether this process is connected with others."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _leave_processes() -> None:
    """Ends the connection between processes: its threads, if they live on, can abort the interpreter as it exits."""
    if _connected():
        sys.modules["torch.distributed"].destroy_process_group()


def take(
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
        key, value = parse_word(word)
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
