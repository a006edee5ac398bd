"""What cannot be written is said in one message: before the work where that can be known, or else after it."""

import builtins
import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import QUICK, fails

from score_lightning import cli, export, import_weights, sample, sweep, train
from score_lightning import eval as evaluate
from score_lightning.experiment import exporting, importing, sweeping
from score_lightning.generation.generator import Generator

FEW = ["n=4", "sampler.steps=2", "evaluation.metrics=[fid]"]
ENDS = ["task=interpolate", "image=[CAT/a.png,CAT/b.jpg]", "n=2"]
COMMANDS = {
    "train": (train, ["exp=ddpm_digits", *QUICK, "evaluation.n=0", "samples.n=0"]),
    "eval": (evaluate, ["ckpt=CKPT", *FEW]),
    "sample": (sample, ["ckpt=CKPT", "n=4", "sampler.steps=2"]),
    "interpolate": (sample, ["ckpt=CKPT", *ENDS]),
    "sweep": (sweep, ["exp=ddpm_digits", "seed=[0,1]"]),
    "safetensors": (export, ["ckpt=CKPT", "format=safetensors"]),
    "import": (import_weights, ["path=CKPT", "exp=ddpm_digits"]),
}


@pytest.fixture
def refused(ckpt, pictures, capsys, monkeypatch):
    """The message of a command that does not even start its work."""

    def start(*_, **__):
        raise AssertionError("the work has started")

    for module, name in [
        (Generator, "__call__"), (sweeping.Training, "run"), (exporting, "open_checkpoint"), (importing, "_open"),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, start)
    places = {"CKPT": str(ckpt), "CAT": str(pictures / "cat")}

    def refuse(name, out):
        entry, words = COMMANDS[name]
        for key, place in places.items():
            words = [word.replace(key, place) for word in words]
        return fails(entry, [*words, f"out={out}"], capsys, monkeypatch)

    return refuse


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_made_is_refused_before_the_work(name, refused, tmp_path):
    (tmp_path / "file").write_text("text", encoding="utf-8")
    before = set(tmp_path.rglob("*"))
    message = refused(name, tmp_path / "file/out")
    assert f"{tmp_path}/file" in message
    assert "cannot be written: " in message or "a file is in the way" in message
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("eval", "metrics.json"),
        ("eval", "levels.png"),
        ("sample", "samples.npz"),
        ("interpolate", "samples.png"),
        ("sweep", "sweep.csv"),
    ],
)
def test_a_folder_with_the_name_of_a_file_is_refused_before_the_work(name, file, refused, tmp_path):
    (tmp_path / "out" / file).mkdir(parents=True)
    assert f"out/{file} cannot be written: Is a directory" in refused(name, tmp_path / "out")


@pytest.fixture
def failing(monkeypatch):
    """Lets files of a name fail to open for writing."""

    def fail(name, number):
        opened = io.open

        def open_or_fail(file, mode="r", *args, **kwargs):
            if any(c in mode for c in "wx+") and name in str(file):
                raise OSError(number, os.strerror(number), str(file))
            return opened(file, mode, *args, **kwargs)

        for module in (io, builtins):
            monkeypatch.setattr(module, "open", open_or_fail)

    return fail


@pytest.mark.parametrize(
    ("name", "file", "number", "reason"),
    [
        ("sample", "samples.png", errno.EIO, "Input/output error"),
        ("sample", "samples.npz", errno.EROFS, "Read-only file system"),
        ("eval", "metrics.json", errno.EIO, "Input/output error"),
        ("eval", "samples.png", errno.ENOSPC, "the disk is full"),
    ],
)
def test_a_failure_at_the_end_is_one_message_and_the_images_are_kept(
    name, file, number, reason, ckpt, tmp_path, failing, capsys, monkeypatch
):
    entry, words = COMMANDS[name]
    words = [word.replace("CKPT", str(ckpt)) for word in words] + [f"out={tmp_path}"]
    failing(file, number)
    message = fails(entry, words, capsys, monkeypatch)
    assert message == f"score_lightning: {reason} ({tmp_path / file}): complete files are not lost\n"
    assert list(tmp_path.glob(".images-*/*.npz"))
    monkeypatch.undo()
    entry.main(words)
    assert (tmp_path / file).is_file()


def test_the_numbers_of_an_evaluation_are_printed_before_they_are_written(ckpt, tmp_path, failing, capsys, monkeypatch):
    failing("samples.png", errno.ENOSPC)
    monkeypatch.setattr(sys, "argv", ["x", f"ckpt={ckpt}", *FEW, f"out={tmp_path}"])
    with pytest.raises(SystemExit):
        cli.run(evaluate.main, evaluate.usage)
    assert "fid_classifier" in capsys.readouterr().out


def test_a_new_run_that_cannot_be_written_leaves_no_folder(tmp_path, failing, capsys, monkeypatch):
    failing("config.yaml", errno.EROFS)
    entry, words = COMMANDS["train"]
    message = fails(entry, [*words, f"out={tmp_path}/runs"], capsys, monkeypatch)
    assert message.startswith(f"score_lightning: Read-only file system ({tmp_path}/runs/ddpm_digits/0/config.yaml)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError("no number"), ConnectionResetError(errno.ECONNRESET, "reset"), BrokenPipeError(errno.EPIPE, "x")]
)
def test_failures_of_other_things_than_files_keep_their_traceback(error, monkeypatch):
    def main(_):
        raise error

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(type(error)) as raised:
        cli.run(main, str)
    assert raised.value is error


def run(stdout, **environment):
    """The finished --help of a command."""
    program = [sys.executable, "-m", "score_lightning.experiments", "--help"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "", **environment}
    return subprocess.run(program, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, env=environment)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_pipe_that_nobody_reads_ends_a_command_quietly(unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    done = run(writer, PYTHONUNBUFFERED=unbuffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_on_a_full_disk_is_one_message():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = run(full)
    assert (done.returncode, done.stderr) == (2, "score_lightning: the disk is full: complete files are not lost\n")
