"""What fits into this machine's memory."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import torch

CONTROL_GROUPS = Path("/sys/fs/cgroup")
STATE = Path("/proc")


def host_bytes() -> int:
    """Size of this machine's memory in bytes, GPUs excluded; without end where the system does not say, on Windows."""
    if not hasattr(os, "sysconf"):
        return sys.maxsize
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_bytes() -> int:
    """Memory in bytes that can still be taken, within the limits of control groups; half of all where it is unknown."""
    return max(0, min([*_free(), *_left_in_groups()], default=host_bytes() // 2))


def _free() -> Iterator[int]:
    with suppress(OSError):  # Linux only
        for line in (STATE / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _left_in_groups() -> Iterator[int]:
    """What is left of the limit of each control group that this process is in, such as a container's or a job's."""
    with suppress(OSError):
        for line in (STATE / "self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            root, limit, used = CONTROL_GROUPS, "memory.max", "memory.current"
            if "memory" in controllers.split(","):  # version 1
                root, limit, used = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            elif controllers:
                continue
            for place in (PurePosixPath(group), *PurePosixPath(group).parents):
                folder = root / place.relative_to("/")
                with suppress(OSError, ValueError):  # no such file, or "max"
                    yield _number(folder / limit) - _number(folder / used) + _dropped(folder)


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _dropped(group: Path) -> int:
    """Bytes of files in the memory of a control group that can be dropped."""
    entries = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    return int(entries.get("total_inactive_file", entries.get("inactive_file", 0)))


def check_bytes(needed: int, what: str) -> None:
    """Refuses what needs more memory than this machine and its GPUs have together.

    Raises:
        MemoryError: with both sizes.
    """
    if needed <= host_bytes():  # GPUs are asked only if it matters: that initializes them
        return
    gpus = (torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    available = host_bytes() + sum(gpus)
    if needed > available:
        raise MemoryError(f"{what} take {needed / 2**30:,.1f} GiB, this machine has {available / 2**30:,.1f}")
