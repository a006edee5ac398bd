"""Imports point one way: from the commands down to the theory."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import score_lightning

ROOT = Path(score_lightning.__file__).parent
COMMANDS = {"train", "eval", "sample", "suggest_noise", "import_weights", "export", "experiments", "sweep", "bench"}
ROOMS = [
    {*COMMANDS, "__main__", "checkpoint", "cli"},
    {"experiment"},
    {"figures"},
    {"config"},
    {"training"},
    {"evaluation"},
    {"generation"},
    {"tracking"},
    {"data"},
    {"formats"},
    {"runtime"},
    {"likelihood"},
    {"samplers"},
    {"objectives"},
    {"conditional", "divergence"},
    {"models"},
    {"networks"},
    {"schedules"},
    {"perturbation"},
    {"errors"},
]
"""Each room imports from those below it, and never from those above."""
THEORY = set().union(*ROOMS[11:-1])


def floor(name):
    """How far down a room lies."""
    return next(i for i, rooms in enumerate(ROOMS) if name in rooms)


def imports(path):
    """The module of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "score_lightning":
                yield from (f"score_lightning.{alias.name}" for alias in node.names)
            else:
                yield node.module


FILES = {path: path.relative_to(ROOT).with_suffix("").parts[0] for path in ROOT.rglob("*.py")}
FILES = {path: name for path, name in FILES.items() if name != "__init__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_room_imports_from_a_room_above(path):
    for module in imports(path):
        package, *rest = module.split(".")
        if package == "score_lightning" and rest:
            assert floor(rest[0]) >= floor(FILES[path]), f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("path", [p for p, n in FILES.items() if n in THEORY], ids=lambda p: str(p.relative_to(ROOT)))
def test_theory_and_networks_import_torch_and_its_solvers_only(path):
    allowed = {"torch", "torchode", "score_lightning", "tqdm", *sys.stdlib_module_names}
    assert {module.split(".")[0] for module in imports(path)} <= allowed
    inside = {module.split(".")[1] for module in imports(path) if module.startswith("score_lightning.")}
    assert inside <= THEORY


def test_only_configurations_know_omegaconf():
    users = {path.name for path in FILES if any(module.startswith("omegaconf") for module in imports(path))}
    assert users == {"bounds.py", "compose.py", "describe.py", "files.py", "overrides.py"}


@pytest.mark.parametrize("entry", sorted({*COMMANDS, "__main__"}))
def test_help_does_not_import_torch(entry):
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('score_lightning.{entry}', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert f"score_lightning.{entry}" in shown.stdout or entry == "__main__"


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("sample", {"lightning", "torchmetrics", "torchvision", "torch_fidelity", "sklearn", "wandb"}),
        ("evaluate", {"lightning", "sklearn", "wandb"}),
        ("train", {"sklearn", "wandb"}),
    ],
)
def test_a_command_imports_no_slow_package_that_it_may_not_need(module, slow):
    code = f"import sys, score_lightning.experiment.{module}; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not slow & set(imported)
