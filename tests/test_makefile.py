"""The environment is set up by uv where it is installed, else by pip: with the same versions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIP = "{}/venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable"
UV = """#!/bin/sh
echo "uv $*"
for last; do :; done
if [ "$1" = venv ]; then mkdir -p "$last"; fi
"""


def make(*words, **environment):
    """What make prints."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    program = ["make", "--no-print-directory", *words, f"PYTHON={sys.executable}"]
    environment = {**os.environ, **environment}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_uv_creates_the_environment_and_installs_into_it(tmp_path):
    (tmp_path / "uv").write_text(UV)
    (tmp_path / "uv").chmod(0o755)
    venv = tmp_path / "venv"
    printed = make("setup", f"VENV={venv}", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}").splitlines()
    assert printed[-2:] == [
        f"uv venv --quiet --seed --allow-existing --python {sys.executable} {venv}",
        f"uv pip install --quiet --python {venv}/bin/python --constraint constraints.txt --editable .[dev]",
    ]
    assert (venv / ".ready").is_file()


def test_without_uv_pip_does(tmp_path):
    printed = make("--dry-run", "setup", f"VENV={tmp_path}/venv", "UV=")
    assert f"{sys.executable} -m venv {tmp_path}/venv" in printed
    assert f"{PIP.format(tmp_path)} '.[dev]'" in printed
    assert "--resolution lowest" not in printed


def test_other_versions_are_chosen_by_one_variable(tmp_path):
    printed = make("--dry-run", "bench", f"VENV={tmp_path}/venv", "UV=uv", "RESOLVE=--resolution lowest-direct")
    install = f"uv pip install --quiet --python {tmp_path}/venv/bin/python --resolution lowest-direct --editable"
    assert f"{install} '.[dev]'" in printed
    assert f"{install} '.[bench]'" in printed


@pytest.mark.parametrize("target", ["docs", "docs-serve"])
def test_the_documentation_brings_its_extra(target, tmp_path):
    printed = make("--dry-run", target, f"VENV={tmp_path}/venv", "UV=").splitlines()
    assert printed.index(f"{PIP.format(tmp_path)} '.[dev]'") < printed.index(f"{PIP.format(tmp_path)} '.[docs]'")
    assert (
        f"{tmp_path}/venv/bin/python -m mkdocs {'build' if target == 'docs' else 'serve'}"
        in printed[-1 - (target == "docs")]
    )
