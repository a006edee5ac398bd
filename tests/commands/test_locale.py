"""Commands in another locale, and names that are no text."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import QUICK

import score_lightning
from score_lightning import cli
from score_lightning.errors import UserError
from score_lightning.runtime.files import write_text

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
COMMANDS = ["train", "eval", "sample", "sweep", "export", "import_weights", "suggest_noise", "experiments", "bench"]
FILES = sorted(Path(score_lightning.__file__).parent.rglob("*.py"))


def run(command, *words, **environment):
    program = [sys.executable, "-m", f"score_lightning.{command}", *words]
    return subprocess.run(program, capture_output=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, ASCII], ids=["terminal", "locale"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_on_a_terminal_that_knows_ascii_only(command, environment):
    done = run(command, "--help", **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert b"score_lightning" in done.stdout


def test_every_text_file_is_read_and_written_as_a_named_encoding():
    """What ruff finds only where it knows that an object is a path."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                texts = node.func.attr in ("read_text", "write_text") or "text" in named
                assert not texts or "encoding" in named, f"{path}:{node.lineno}"


@pytest.mark.parametrize("word", ["out=gr\udcfcn/…", "–"])
def test_messages_show_names_that_are_no_text(word, monkeypatch, capfd):
    def main(words):
        print(words)
        raise UserError(words[0])

    monkeypatch.setattr(sys, "argv", ["x", word])
    for name, number in (("stdout", 1), ("stderr", 2)):
        monkeypatch.setattr(sys, name, os.fdopen(os.dup(number), "w", encoding="ascii"))
    with pytest.raises(SystemExit):
        cli.run(main, str)
    sys.stderr.flush()
    assert capfd.readouterr().err == f"score_lightning: {word.encode('ascii', 'backslashreplace').decode()}\n"


def test_a_name_that_is_no_text_is_written_as_its_bytes(tmp_path):
    write_text(tmp_path / "a", os.fsdecode(b"gr\xfcn"))
    assert (tmp_path / "a").read_bytes() == b"gr\xfcn"


@pytest.mark.slow
def test_a_training_and_an_evaluation_in_the_locale_of_ascii(tmp_path):
    out = tmp_path / "grün"
    words = ["exp=ddpm_digits", *QUICK, "evaluation.n=12", "samples.n=0", f"out={tmp_path}/runs"]
    done = run("train", *words, **ASCII)
    assert done.returncode == 0, done.stderr
    ckpt = tmp_path / "runs/ddpm_digits/0/checkpoints/last.ckpt"
    few = ["n=4", "sampler.steps=2", "evaluation.metrics=[fid]", f"out={out}"]
    done = run("eval", f"ckpt={ckpt}", *few, **ASCII)
    assert done.returncode == 0, done.stderr
    assert "ema" in (out / "report.html").read_text(encoding="utf-8")
    done = run("train", "exp=ddpm_digits", f"out={out}", **ASCII)
    assert done.returncode == 2
    assert done.stderr.startswith(b"score_lightning: out: ")
    assert b"is not valid UTF-8" in done.stderr
