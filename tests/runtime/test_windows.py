"""Every module is imported where Python lacks what Windows lacks."""

import subprocess
import sys

import pytest

from score_lightning.runtime import memory

WITHOUT = """
import importlib, os, pkgutil, select, signal, sys
import score_lightning

def import_all():
    names = [module.name for module in pkgutil.walk_packages(score_lightning.__path__, "score_lightning.")]
    for name in names:
        importlib.import_module(name)
    return names

first = import_all()  # what other packages import on this system is not asked
for name in list(sys.modules):
    if name.split(".")[0] == "score_lightning" and name != "score_lightning":
        del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline", "curses"):
    sys.modules[name] = None
for module, names in {
    signal: ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM", "SIGCHLD", "SIGQUIT", "SIGCONT", "SIGSTOP",
             "pthread_sigmask"),
    os: ("fork", "register_at_fork", "sysconf", "sched_getaffinity", "sched_setaffinity", "getuid", "uname", "getpgid"),
    select: ("poll",),
}.items():
    for name in names:
        delattr(module, name)
again = import_all()
assert again == first
assert len(again) > 150
from score_lightning.runtime.signals import SIGNALS, held_back, ignore_signals, stop_at_signals
assert SIGNALS == (signal.SIGTERM,)
with stop_at_signals(), held_back():
    pass
ignore_signals()
print("imported")
"""


@pytest.mark.slow
def test_every_module_is_imported_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr


def test_memory_of_unknown_size_refuses_nothing(monkeypatch, tmp_path):
    monkeypatch.delattr(memory.os, "sysconf")
    monkeypatch.setattr(memory, "STATE", tmp_path)
    memory.check_bytes(2**50, "a lot")
    assert memory.available_bytes() > 2**50
