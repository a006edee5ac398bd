"""Who starts the processes of a task, and how these end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from support import QUICK, fails

from score_lightning import config, sample, train
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.trainer import build_trainer
from score_lightning.runtime.processes import check_address, local_processes, placement

ENVIRONMENTS = {
    "alone": {},
    "torchrun": {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6", "RANK": "0", "LOCAL_RANK": "0"},
    "SLURM": {
        "SLURM_NTASKS": "6", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "3", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "train",
        "SLURM_STEP_NUM_TASKS": "6",
    },
}  # fmt: skip


@pytest.fixture(params=ENVIRONMENTS)
def launcher(request, monkeypatch):
    """The environment of the first process that each of them starts; its name."""
    for name in {"MASTER_ADDR", "MASTER_PORT"}.union(*ENVIRONMENTS.values()) & set(os.environ):
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENTS[request.param].items():
        monkeypatch.setenv(name, value)
    return request.param


def test_open_settings_are_those_of_the_launcher(launcher):
    assert placement("auto", 1) == (("auto", 1) if launcher == "alone" else ("2", 3))
    assert placement("2", 3) == ("2", 3)
    assert placement("0,1", 1) == ("0,1", 1 if launcher == "alone" else 3)  # which GPUs
    assert local_processes("auto") == (1 if launcher == "alone" else 2)


def test_settings_that_contradict_the_launcher_are_refused(launcher):
    if launcher == "alone":
        assert placement("4", 5) == ("4", 5)
        return
    started = f"{launcher} has started 2 processes on each of 3 machines"
    with pytest.raises(UserError, match=f"^{started}, not devices=4: leave that out"):
        placement("4", 1)
    with pytest.raises(UserError, match=f"^{started}, not trainer.devices=4 trainer.num_nodes=2: leave that out"):
        placement("4", 2, "trainer.")


@pytest.mark.parametrize("launcher", ["SLURM"], indirect=True)
def test_a_shell_and_a_script_without_srun_are_no_launchers(launcher, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert placement("4", 1) == ("4", 1)
    monkeypatch.setenv("SLURM_JOB_NAME", launcher)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    assert placement("4", 1) == ("4", 1)


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_several_processes_train_with_gradients_in_buckets(launcher, strategy, tmp_path):
    processes = {"alone": 2, "torchrun": 6, "SLURM": 6}[launcher]
    words = [*QUICK, "trainer.batch_size=12", f"out={tmp_path}", "trainer.accelerator=cpu"]
    words += ["trainer.devices=2"] if launcher == "alone" else []
    trainer = build_trainer(Experiment(config.load([*words, f"trainer.strategy={strategy}"], "ddpm_digits")), [])
    assert trainer.world_size == processes
    assert trainer.strategy._ddp_kwargs["gradient_as_bucket_view"]


@pytest.mark.parametrize("launcher", ["torchrun", "SLURM"], indirect=True)
def test_a_training_that_contradicts_its_launcher_leaves_nothing(launcher, tmp_path, capsys, monkeypatch):
    words = ["exp=ddpm_digits", *QUICK, "evaluation.n=0", f"out={tmp_path}/runs", "trainer.devices=1"]
    assert f"{launcher} has started 2 processes on each of 3 machines, not trainer.devices=1: leave that out" in fails(
        train, words, capsys, monkeypatch
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def taken(monkeypatch):
    """A port on which another program listens, in the environment."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    with socket.create_server(("localhost", 0)) as program:
        monkeypatch.setenv("MASTER_PORT", str(program.getsockname()[1]))
        yield os.environ["MASTER_PORT"]


@pytest.mark.parametrize("launcher", ["alone"], indirect=True)
@pytest.mark.parametrize("command", [train, sample])
def test_a_port_in_use_is_refused_before_other_processes_start(
    command, launcher, taken, ckpt, tmp_path, capsys, monkeypatch
):
    assert launcher
    monkeypatch.setattr(subprocess, "Popen", None)
    words = {
        train: ["exp=ddpm_digits", *QUICK, "evaluation.n=0", f"out={tmp_path}/runs", "trainer.devices=2",
                "trainer.accelerator=cpu"],
        sample: [f"ckpt={ckpt}", "n=2", f"out={tmp_path}", "devices=2", "device=cpu"],
    }[command]  # fmt: skip
    message = fails(command, words, capsys, monkeypatch)
    assert f"MASTER_PORT={taken} (Address already in use): set MASTER_PORT to a free port" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("launcher", ["alone"], indirect=True)
@pytest.mark.parametrize("port", ["", "x", "-1", "70000"])
def test_what_is_no_port_is_refused(launcher, port, monkeypatch):
    assert launcher
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(UserError, match=f"MASTER_PORT={port} "):
        check_address()


@pytest.mark.parametrize("launcher", ["torchrun"], indirect=True)
def test_the_port_on_which_torchrun_listens_is_none_in_use(launcher, taken):
    assert launcher
    assert taken
    check_address()


RANK = """
import os, subprocess, sys, time
from score_lightning.runtime.startup import end_with_launcher
end_with_launcher()
if os.environ["LOCAL_RANK"] == "0":
    subprocess.Popen([sys.executable, sys.argv[0]], env={**os.environ, "LOCAL_RANK": "1"})
else:
    print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("real", [True, False])
def test_a_launched_process_ends_with_a_killed_launcher(real, tmp_path, request):
    if not real:  # as the tests of whole runs rely on
        request.getfixturevalue("forked")
    (tmp_path / "rank.py").write_text(RANK)
    reader, writer = os.pipe()
    with os.fdopen(reader) as output:
        environment = {**os.environ, "LOCAL_RANK": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
        with os.fdopen(writer, "w") as pipe:
            first = subprocess.Popen([sys.executable, str(tmp_path / "rank.py")], env=environment, stdout=pipe)
        assert int(output.readline()) != first.pid
        first.kill()
        first.wait()
        assert output.read() == ""  # returns when no process has the pipe


WAITING = """
import signal, sys
import torch
from score_lightning import cli
from score_lightning.runtime.signals import end_at_signals, stop_at_signals

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs in the background ignore it

def main(arguments):
    with stop_at_signals(), end_at_signals():
        torch.distributed.TCPStore("localhost", int(arguments[0]), world_size=2, is_master=True)

cli.run(main, str)
"""


def connect(port, process):
    """A connection to a process, as soon as it listens."""
    while process.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("localhost", port))
        time.sleep(0.01)
    raise AssertionError("it has ended")


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_ends_a_process_that_waits_for_others(sent, code, tmp_path):
    (tmp_path / "waiting.py").write_text(WAITING)
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    program = [sys.executable, str(tmp_path / "waiting.py"), str(port)]
    with (tmp_path / "log").open("w") as log:
        waiting = subprocess.Popen(program, stdout=log, stderr=log)
    with connect(port, waiting):  # once it waits, outside Python
        waiting.send_signal(sent)
        assert waiting.wait(60) == code
    assert (tmp_path / "log").read_text().startswith("stopped")
