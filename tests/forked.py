"""Programs that are forked from a process which has imported what they need: imports are most of a short run.

A test that takes the fixture `forked` starts all Python programs so, and what it starts does the same with its own
processes (the other ranks of a run). Each command has tests that start it as a shell does, in test_real_starts.py.
"""

import contextlib
import gc
import json
import os
import runpy
import select
import socket
import subprocess
import sys
import tempfile
import threading

ADDRESS = "FORKED_FROM"  # the environment variable that names the server's socket
REAL = subprocess.Popen


class Forked(REAL):
    """What tests, Lightning and torchrun use of `subprocess.Popen`; pipes are files that are read in the end."""

    _child_created = False  # not by this process: nothing to reap

    def __new__(cls, args, **options):
        return super().__new__(cls) if args[0] == sys.executable else REAL(args, **options)

    def __init__(self, args, env=None, cwd=None, stdout=None, stderr=None, text=False, start_new_session=False):
        self.args, self.returncode, self.text_mode = args, None, text
        self.stdin = self.stdout = self.stderr = None
        self._pipes = [tempfile.TemporaryFile() if file == subprocess.PIPE else None for file in (stdout, stderr)]  # noqa: SIM115
        files = [pipe or file for pipe, file in zip(self._pipes, (stdout, stderr), strict=True)]
        descriptors = [i if file is None else file.fileno() for i, file in enumerate(files, start=1)]
        request = {
            "arguments": [str(word) for word in args[1:]], "cwd": str(cwd or os.getcwd()),  # noqa: PTH109
            "env": dict(os.environ if env is None else env), "group": 0 if start_new_session else os.getpgrp(),
            "parent": os.getpid(),
        }  # fmt: skip
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(os.environ[ADDRESS])
        socket.send_fds(self._server, [b"!"], descriptors)
        self._server.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._server.makefile()
        self.pid = int(self._answers.readline())

    def poll(self):
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self.returncode = int(self._answers.readline())
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._server], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.poll()

    def communicate(self, input=None, timeout=None):
        assert input is None
        self.wait(timeout)
        return tuple(pipe and self._contents(pipe) for pipe in self._pipes)

    def _contents(self, file):
        file.seek(0)
        return file.read().decode() if self.text_mode else file.read()

    def send_signal(self, sig):
        if self.poll() is None:
            os.kill(self.pid, sig)


def serve(address):
    """Forks for each request, in whose process it returns; the parent ends with its standard input."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        running = {}
        while True:
            ready = select.select([listener, sys.stdin], [], [], 0.01)[0]
            if sys.stdin in ready:
                sys.exit()
            if listener in ready:
                connection, _ = listener.accept()
                _, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
                request = json.loads(connection.makefile().readline())
                pid = os.fork()
                if pid == 0:
                    for other in running.values():
                        other.close()
                    return request, descriptors
                for descriptor in descriptors:
                    os.close(descriptor)
                running[pid] = connection
                connection.sendall(f"{pid}\n".encode())
            for pid in list(running):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    report(running.pop(pid), os.waitstatus_to_exitcode(status))


def report(connection, code):
    """Tells whoever asked for a process how it ended, unless that is gone itself."""
    with connection, contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())


def become(request, descriptors):
    """Makes this process look like the one that was asked for; returns its arguments."""
    os.setpgid(0, request["group"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, descriptor in enumerate([os.open(os.devnull, os.O_RDONLY), *descriptors]):
        os.dup2(descriptor, number)
    subprocess.Popen = Forked
    adopt(request["parent"])
    arguments = request["arguments"]
    return arguments[1:] if arguments[0] == "-u" else arguments


def adopt(parent):
    """Makes the process that asked for this one its parent as long as it runs; what this one forks has its own."""
    me, real = os.getpid(), os.getppid

    def seen():
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            return real()
        return parent if os.getpid() == me else real()

    os.getppid = seen


def preload():
    import matplotlib.figure  # noqa: F401
    import scipy.linalg  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch_fidelity  # noqa: F401

    import score_lightning.experiment.evaluate  # noqa: F401
    import score_lightning.experiment.sample  # noqa: F401
    import score_lightning.experiment.sweeping  # noqa: F401
    import score_lightning.experiment.train  # noqa: F401

    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    preload()
    arguments = become(*serve(sys.argv[1]))
    if arguments[0] == "-m":
        sys.path[0] = os.getcwd()  # noqa: PTH109
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = os.path.dirname(arguments[0])  # noqa: PTH120
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
