"""Runs that are killed, stopped or fill the disk, and go on."""

import builtins
import csv
import errno
import fcntl
import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from chaos import chaos, differences
from support import QUICK, UNET, assert_same_state, fails, run, slow_but, state

from score_lightning import checkpoint, cli, train
from score_lightning.data.images import ImageSet
from score_lightning.errors import NonFiniteError, UserError
from score_lightning.experiment import train as experiment_train
from score_lightning.objectives import ImportanceSampled
from score_lightning.runtime.startup import is_first
from score_lightning.training import stopping
from score_lightning.training.checkpoint_io import AsyncCheckpointWriter, AtomicCheckpointIO
from score_lightning.training.module import ScoreModule

BARE = ["evaluation.n=0", "samples.n=0", "trainer.checkpoint_every=1"]


def steps_in(folder):
    return sorted(int(path.stem[5:]) for path in (folder / "checkpoints").glob("step_*.ckpt"))


def test_the_last_checkpoints_are_kept_and_last_is_the_newest(tmp_path):
    folder = run(tmp_path, *BARE, "trainer.max_steps=5", "trainer.keep=2")
    assert steps_in(folder) == [4, 5]
    assert (folder / "checkpoints/last.ckpt").samefile(folder / "checkpoints/step_0000005.ckpt")
    assert not list(folder.rglob(".*"))


@pytest.mark.slow
def test_auto_begins_goes_on_and_knows_its_end(tmp_path, capsys):
    words = ["net.dropout=0.2", "evaluation.n=12", "samples.n=2", "samples.every=1", "evaluation.every=1"]
    words += ["trainer.checkpoint_every=1", "validation.every=1"]
    whole = run(tmp_path / "whole", *words, "trainer.max_steps=6")
    for end in (2, 3, 6):
        parts = run(tmp_path / "parts", *words, f"trainer.max_steps={end}", "resume=auto")
    assert [path.name for path in parts.parent.iterdir()] == ["0"]
    assert differences(whole, parts) == []
    assert (whole / "metrics.json").read_text().count("fid_classifier") > 0
    assert sorted(path.name for path in (whole / "samples").iterdir()) == sorted(
        p.name for p in (parts / "samples").iterdir()
    )
    capsys.readouterr()
    run(tmp_path / "parts", *words, "trainer.max_steps=6", "resume=auto")
    assert "has done all its steps" in capsys.readouterr().out


def test_auto_resumes_a_run_from_before_there_was_a_setting(tmp_path, capsys):
    folder = run(tmp_path, *BARE, "trainer.max_steps=2")
    path = folder / "checkpoints/last.ckpt"
    contents = torch.load(path, weights_only=True)
    del contents["config"]["images"]["resize"]
    for checkpoint_file in (folder / "checkpoints").iterdir():
        checkpoint_file.unlink()
    torch.save(contents, path)
    assert run(tmp_path, *BARE, "trainer.max_steps=3", "resume=auto") == folder
    assert "resuming from" in capsys.readouterr().out


def test_auto_begins_again_where_it_was_killed_before_its_first_checkpoint(tmp_path):
    whole = run(tmp_path / "a", *BARE, "trainer.max_steps=2")
    folder = run(tmp_path / "b", *BARE, "trainer.max_steps=2", "resume=auto")
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    assert run(tmp_path / "b", *BARE, "trainer.max_steps=2", "resume=auto") == folder
    assert differences(whole, folder) == []
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    assert run(tmp_path / "b", *BARE, "trainer.max_steps=2", "resume=auto", "seed=1").name == "1"


def test_a_truncated_checkpoint_is_named_and_passed_over(tmp_path, capsys):
    whole = run(tmp_path / "a", *BARE, "trainer.max_steps=4")
    folder = run(tmp_path / "b", *BARE, "trainer.max_steps=3")
    newest = folder / "checkpoints/step_0000003.ckpt"
    content = newest.read_bytes()
    (folder / "checkpoints/last.ckpt").unlink()
    newest.write_bytes(content[: len(content) // 2])
    os.utime(newest)
    run(tmp_path / "b", *BARE, "trainer.max_steps=4", "resume=auto")
    printed = capsys.readouterr().out
    assert f"skipped: {newest} is truncated" in printed
    assert steps_in(folder) == [3, 4]
    assert "resuming from" in printed
    assert "step_0000002.ckpt" in printed
    assert_same_state(state(whole), state(folder))


@pytest.mark.parametrize("number", slow_but({signal.SIGTERM}, [signal.SIGTERM, signal.SIGUSR1]))
def test_signals_save_before_the_next_step_and_leave_with_75(number, tmp_path, monkeypatch, capsys):
    # an evaluation was due at the step that it is resumed from, and the batch after that is no step yet
    words = ["trainer.checkpoint_every=100", "trainer.max_steps=5", "trainer.accumulate=2"]
    words += ["evaluation.n=12", "evaluation.every=3", "samples.n=0", "net.dropout=0.1"]
    whole = run(tmp_path / "a", *words)
    step = ScoreModule.training_step

    def signalled(self, batch, batch_idx):
        if self.trainer.global_step == 2:
            os.kill(os.getpid(), number)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ScoreModule, "training_step", signalled)
    monkeypatch.setattr(sys, "argv", ["x", "exp=ddpm_digits", *QUICK, *words, f"out={tmp_path / 'b'}"])
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        cli.run(train.main, train.usage)
    assert stopped.value.code == 75
    assert signal.getsignal(number) == before
    assert f"{number.name} after step 3" in capsys.readouterr().err
    monkeypatch.setattr(ScoreModule, "training_step", step)
    folder = run(tmp_path / "b", *words, "resume=auto")
    assert differences(whole, folder) == []


def test_time_makes_a_checkpoint_due(tmp_path):
    words = ["trainer.checkpoint_every=1000", "trainer.max_steps=6", "trainer.log_every=2", "trainer.keep=9"]
    folder = run(tmp_path, *BARE, *words, "trainer.checkpoint_minutes=1e-9")
    assert steps_in(folder) == [2, 4, 6]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    path, save = tmp_path / "last.ckpt", torch.save
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(3)}, path)

    def full(_, file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot be written: .*No space left on device; .* is as it was"):
        AtomicCheckpointIO().save_checkpoint({"a": torch.zeros(3)}, path)
    monkeypatch.setattr(torch, "save", save)
    assert torch.equal(torch.load(path)["a"], torch.ones(3))
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("what", ["samples/", "metrics.json", "metrics.csv"])
def test_a_full_disk_is_said_and_the_checkpoint_before_is_whole(what, tmp_path, monkeypatch, capsys):
    words = [
        "trainer.max_steps=4",
        "trainer.checkpoint_every=1",
        "samples.every=3",
        "evaluation.every=3",
        "evaluation.n=12",
    ]
    opened, folder = io.open, tmp_path / "ddpm_digits/0"

    def full(file, mode="r", *args, **kwargs):
        begun = (folder / "checkpoints/step_0000002.ckpt").exists()
        if begun and any(c in mode for c in "wax+") and what in str(file):
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return opened(file, mode, *args, **kwargs)

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", full)
    message = fails(train, ["exp=ddpm_digits", *QUICK, *words, f"out={tmp_path}"], capsys, monkeypatch)
    monkeypatch.undo()
    assert "disk is full" in message or "No space left" in message
    assert checkpoint.read(folder / "checkpoints/last.ckpt")["global_step"] == 2


FULL_DISK = """
import sys
import torch
from score_lightning import cli, train

save = torch.save

def full(contents, file):
    if "step_0000003" in file.name:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")
    save(contents, file)

if __name__ == "__main__":
    torch.save = full
    cli.run(train.main, train.usage)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_full_disk_of_the_first_of_two_processes_is_said_once(tmp_path):
    script = tmp_path / "full.py"
    script.write_text(FULL_DISK)
    words = [*QUICK, *BARE, "trainer.max_steps=20", "trainer.devices=2", "trainer.accelerator=cpu", f"out={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(script), "exp=ddpm_digits", *words]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count("No space left on device") == 1
    assert "Traceback" not in done.stderr
    assert checkpoint.read(tmp_path / "ddpm_digits/0/checkpoints/last.ckpt")["global_step"] == 2


def poisoned(monkeypatch, at, parameter=False):
    """From optimizer step `at` on, the loss of one image, or one gradient, is not a number."""
    step = ScoreModule.training_step

    def broken(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        if self.trainer.global_step + 1 not in at:
            return loss
        if parameter:
            self.model.net.conv_in.bias.register_hook(lambda g: g * float("nan"))
            return loss
        t, losses = self.last
        losses = losses.clone()
        losses[3] = float("nan")
        self.last = (t, losses)
        return loss * float("nan")

    monkeypatch.setattr(ScoreModule, "training_step", broken)


@pytest.mark.parametrize("parameter", [False, True], ids=["loss", "gradient"])
def test_numbers_that_go_wrong_stop_the_run_before_the_weights(parameter, tmp_path, monkeypatch, capsys):
    poisoned(monkeypatch, {3}, parameter)
    words = ["exp=ddpm_digits", *QUICK, *BARE, "trainer.max_steps=5", f"out={tmp_path}"]
    message = fails(train, words, capsys, monkeypatch)
    folder = tmp_path / "ddpm_digits/0"
    assert (
        "step 3: the gradient is not finite, at sigma from" in message
        if parameter
        else "the loss is not finite at sigma = 0." in message
    )
    assert f"the last good checkpoint is {folder / 'checkpoints/last.ckpt'}" in message
    assert steps_in(folder) == [1, 2]
    assert all(
        torch.isfinite(value).all() for value in state(folder)["state_dict"].values() if value.is_floating_point()
    )


def test_a_set_number_of_bad_steps_is_skipped(tmp_path, monkeypatch, capsys):
    poisoned(monkeypatch, {2})
    # a skipped step counts as one: step 2 of the optimizer is tried once
    folder = run(tmp_path, *BARE, "trainer.max_steps=4", "trainer.skip_nonfinite=1", "trainer.keep=9")
    assert "skipped, 0 more may be" in capsys.readouterr().out
    before, after = (torch.load(folder / f"checkpoints/step_000000{i}.ckpt", weights_only=True) for i in (1, 2))
    for name, value in before["state_dict"].items():
        if name.startswith("model."):
            assert torch.equal(value, after["state_dict"][name]), name
    poisoned(monkeypatch, {2, 3})
    with pytest.raises(NonFiniteError, match="step 3"):
        run(tmp_path / "b", *BARE, "trainer.max_steps=4", "trainer.skip_nonfinite=1")
    with pytest.raises(NonFiniteError, match="step 3"):  # what was skipped before a resume counts
        run(tmp_path / "b", *BARE, "trainer.max_steps=4", "trainer.skip_nonfinite=1", "resume=auto")


def test_a_skipped_step_is_read_later_and_leaves_everything_as_it_was(tmp_path, monkeypatch, capsys):
    step, states = ScoreModule.optimizer_step, []

    def watched(self, *args, **options):
        step(self, *args, **options)
        states.append({name: value.clone() for name, value in self.state_dict().items()})

    monkeypatch.setattr(ScoreModule, "optimizer_step", watched)
    poisoned(monkeypatch, {2, 3})
    words = [*BARE, "trainer.checkpoint_every=100", "trainer.log_every=4", "trainer.max_steps=5"]
    run(tmp_path, *words, "trainer.skip_nonfinite=2")
    printed = capsys.readouterr().out
    assert "step 2: the loss is not finite at sigma = " in printed
    assert "step 3: the loss is not finite at sigma = " in printed
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name
        assert torch.equal(states[2][name], value), name
    assert any(not torch.equal(value, states[2][name]) for name, value in states[3].items())
    with pytest.raises(NonFiniteError, match="step 3"):
        run(tmp_path, *words, "trainer.skip_nonfinite=1")
    assert len(states) == 5 + 3  # it was read at step 4, before that was taken


def test_what_was_skipped_is_read_before_a_checkpoint_is_written(tmp_path, monkeypatch):
    poisoned(monkeypatch, {2})
    with pytest.raises(NonFiniteError, match="step 2"):
        run(tmp_path, *BARE, "trainer.log_every=100", "trainer.max_steps=5")
    assert steps_in(tmp_path / "ddpm_digits/0") == [1]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_kills_at_random_moments_change_nothing(tmp_path):
    hits, different = chaos(kills=1, processes=1, steps=50, base=tmp_path)
    assert different == []
    assert hits >= 1


def test_the_log_is_whole_after_a_resume_in_another_folder(tmp_path):
    first = run(tmp_path, *BARE, "trainer.max_steps=3")
    second = run(tmp_path, *BARE, "trainer.max_steps=5", f"resume={first}/checkpoints/last.ckpt")
    assert second.name == "1"
    rows = [row["step"] for row in csv.DictReader((second / "metrics.csv").open()) if row["train/loss"]]
    assert rows == ["0", "1", "2", "3", "4"]


@pytest.mark.slow
def test_auto_needs_an_experiment_and_checkpoints_need_no_link(tmp_path, capsys, monkeypatch):
    assert "resume=auto needs exp=NAME" in fails(train, ["resume=auto"], capsys, monkeypatch)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    folder = run(tmp_path, *BARE, "trainer.max_steps=2")
    assert checkpoint.read(folder / "checkpoints/last.ckpt")["global_step"] == 2
    (folder / "checkpoints/.step_0000009.ckpt.1").write_bytes(b"of a write that was killed")
    with pytest.raises(UserError, match="accumulates 1 batches"):
        run(tmp_path, *BARE, "trainer.max_steps=3", "trainer.accumulate=2", "resume=auto")
    run(tmp_path, *BARE, "trainer.max_steps=3", "resume=auto")
    assert not list(folder.glob("checkpoints/.*"))
    capsys.readouterr()
    other = run(tmp_path, *BARE, "trainer.max_steps=2", "seed=1", "resume=auto")
    assert "has seed 0, not 1" in capsys.readouterr().out
    assert other.name == "1"
    slower = run(tmp_path, *BARE, "trainer.max_steps=2", "seed=1", "optimizer.lr=1e-4", "resume=auto")
    assert "has optimizer.lr 0.002, not 0.0001" in capsys.readouterr().out
    assert slower.name == "2"


def test_a_loss_that_is_not_finite_never_reaches_importance_sampling(tmp_path, monkeypatch):
    observe = ImportanceSampled.observe

    def checked(self, t, losses):
        observe(self, t, losses)
        assert torch.isfinite(self.losses).all()
        assert self.counts.sum() == 0

    monkeypatch.setattr(ImportanceSampled, "observe", checked)
    call = ImportanceSampled.__call__
    monkeypatch.setattr(ImportanceSampled, "__call__", lambda self, *args: call(self, *args) / 0)
    words = ["objective=variational_bound", "objective.importance=true", "trainer.max_steps=2"]
    with pytest.raises(NonFiniteError):
        run(tmp_path, *BARE, *words)


def test_signals_before_the_first_step_leave_with_75(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment_train, "fit", lambda *_: os.kill(os.getpid(), signal.SIGUSR1) or time.sleep(1))
    monkeypatch.setattr(sys, "argv", ["x", "exp=ddpm_digits", *QUICK, f"out={tmp_path}"])
    with pytest.raises(SystemExit) as stopped:
        cli.run(train.main, train.usage)
    assert stopped.value.code == 75
    assert "SIGUSR1 while nothing was trained" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ctrl_c_leaves_with_130(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ScoreModule, "training_step", interrupted)
    monkeypatch.setattr(sys, "argv", ["x", "exp=ddpm_digits", *QUICK, *BARE, f"out={tmp_path}"])
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        cli.run(train.main, train.usage)
    signal.signal(signal.SIGINT, handler)
    assert stopped.value.code == 130


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_is_told_in_one_message(workers, tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise UserError("a picture is broken")

    monkeypatch.setattr(ImageSet, "__getitem__", broken)
    words = ["exp=ddpm_digits", *QUICK, *BARE, f"trainer.workers={workers}", f"out={tmp_path}"]
    assert fails(train, words, capsys, monkeypatch) == "score_lightning: a picture is broken\n"


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),  # Lightning's own process in an interactive job
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
    ],
)
def test_one_process_is_the_first(environment, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first() == first


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_workers_leave_signals_to_the_run(tmp_path):
    words = [*QUICK, *BARE, "trainer.max_steps=100000", "trainer.workers=2", f"out={tmp_path}"]
    program = [
        sys.executable,
        "-m",
        "score_lightning.train",
        "exp=ddpm_digits",
        *words,
        "trainer.checkpoint_every=9999",
    ]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True, start_new_session=True)
    samples = tmp_path / "ddpm_digits/0/metrics.csv"
    while process.poll() is None and not samples.exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75, error
    assert "Traceback" not in error
    assert steps_in(tmp_path / "ddpm_digits/0")


def test_one_training_writes_to_a_folder(tmp_path, monkeypatch, capsys):
    folder = run(tmp_path, *BARE, "trainer.max_steps=2")
    opened = os.open(folder, os.O_RDONLY)
    fcntl.flock(opened, fcntl.LOCK_EX)
    words = ["exp=ddpm_digits", *UNET, *QUICK, *BARE, "trainer.max_steps=3", f"out={tmp_path}", "resume=auto"]
    monkeypatch.setattr(stopping, "PATIENCE", 0.0)
    log = (folder / "metrics.csv").read_bytes()
    assert f"another training is writing to {folder}" in fails(train, words, capsys, monkeypatch)
    assert (folder / "metrics.csv").read_bytes() == log
    os.close(opened)
    run(tmp_path, *BARE, "trainer.max_steps=3", "resume=auto")
    assert steps_in(folder)[-1] == 3


def test_a_folder_is_claimed_and_given_back(tmp_path, monkeypatch, capsys):
    mkdir = Path.mkdir

    def raced(self, *args, **options):
        if self.name == "0" and not self.exists():
            mkdir(self, *args, **options)  # by another training, just now
        mkdir(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", raced)
        assert run(tmp_path, *BARE, "trainer.max_steps=1").name == "1"
    words = ["exp=ddpm_digits", *QUICK, "trainer.precision=7", f"out={tmp_path / 'new'}"]
    assert "Lightning refuses" in fails(train, words, capsys, monkeypatch)
    assert not (tmp_path / "new").exists()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    may_write, written = threading.Event(), []

    class Slow(AtomicCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            assert may_write.wait(60)
            super().save_checkpoint(checkpoint, path, storage_options)
            written.append(path)

    weights = {"weight": torch.ones(3)}
    writer = AsyncCheckpointWriter(Slow())
    writer.save_checkpoint({"state_dict": weights}, tmp_path / "step_0000001.ckpt")
    assert written == []  # the call is back before anything is written
    may_write.set()
    writer.teardown()
    assert torch.equal(torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]["weight"], torch.ones(3))
