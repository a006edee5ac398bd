"""score-lightning COMMAND: all commands in one."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import score_lightning
from score_lightning.__main__ import COMMANDS, main


def run(*words, monkeypatch, name="score-lightning"):
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", [name, *words])
    try:
        main()
    except SystemExit as stopped:
        return stopped.code
    return 0


def test_it_has_every_command_of_the_package():
    folder = Path(score_lightning.__file__).parent
    modules = [path for path in folder.glob("*.py") if path.stem != "__main__"]
    assert set(COMMANDS) == {path.stem for path in modules if 'if __name__ == "__main__"' in path.read_text()}


def test_help_lists_every_command(monkeypatch, capsys):
    for words in (["--help"], ["-h"], ["help"]):
        assert run(*words, monkeypatch=monkeypatch) == 0
        printed = capsys.readouterr().out
        assert all(f"\n  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_that_of_its_module(name, monkeypatch, capsys):
    assert run(name, "--help", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == import_module(f"score_lightning.{name}").usage() + "\n"


def test_a_command_gets_the_same_arguments_and_the_command_line_stays(monkeypatch, capsys):
    assert run("train", "exp=ddpm_digits", "trainer.max_steps=7", "dry_run=true", monkeypatch=monkeypatch) == 0
    assert "max_steps: 7" in capsys.readouterr().out
    assert sys.argv[1] == "train"  # launched processes are started by it, too


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian", "exp=x"], "unknown command 'trian': did you mean train?; there are train, sweep, sample"),
        (["import-weights"], "did you mean import_weights?"),
        (["exp=ddpm_digits"], "unknown command 'exp=ddpm_digits'"),
        ([], "which command? train, sweep"),
        (["train", "exp=ddpm_digit"], "unknown experiment 'ddpm_digit': did you mean ddpm_digits?"),
        (["sample"], "ckpt=… is missing"),
    ],
)
def test_a_mistake_ends_with_code_2_and_the_nearest_name(words, message, monkeypatch, capsys):
    assert run(*words, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("score_lightning: ")
    assert message in error


def test_it_is_started_as_a_module_too():
    program = [sys.executable, "-m", "score_lightning"]
    done = subprocess.run([*program, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("score-lightning COMMAND")
    assert subprocess.run([*program, "tran"], capture_output=True, check=False).returncode == 2
