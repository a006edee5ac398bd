"""Imports point one way: theory and networks <- Lightning layer <- evaluation <- entry points."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import score_lightning

ROOT = Path(score_lightning.__file__).parent
THEORY = {
    "perturbation", "schedules", "models", "objectives", "samplers", "ladder", "networks", "pixels", "randomness",
    "likelihood", "divergence", "conditional", "points", "augment",
}  # fmt: skip
ENTRY = {"train", "eval", "sample", "suggest_noise", "import_weights", "export", "experiments", "sweep", "bench"}
LAYERS = [
    THEORY,
    {
        "errors",
        "signals",
        "settings",
        "signatures",
        "memory",
        "config",
        "cli",
        "images",
        "sources",
        "large",
        "data",
        "average",
        "optimizer",
        "training",
        "logs",
        "wandb_logger",
        "dashboard",
        "saving",
        "processes",
        "generate",
        "tasks",
    },
    {"evaluation", "figures", "formats"},
    {"parts", "build", "build_evaluation", "checkpoint", "callbacks", "runs", "begin"},
    ENTRY,
]


def layer_of(name):
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


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
def test_no_module_imports_from_a_layer_above(path):
    for module in imports(path):
        package, *rest = module.split(".")
        if package != "score_lightning" or not rest:
            continue
        assert layer_of(rest[0]) <= layer_of(FILES[path]), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", [p for p, n in FILES.items() if n in THEORY], ids=lambda p: str(p.relative_to(ROOT)))
def test_theory_and_networks_import_torch_and_its_solvers_only(path):
    allowed = {"torch", "torchode", "score_lightning", "tqdm", *sys.stdlib_module_names}
    assert {module.split(".")[0] for module in imports(path)} <= allowed
    inside = {module.split(".")[1] for module in imports(path) if module.startswith("score_lightning.")}
    assert inside <= THEORY


def test_only_configurations_know_omegaconf():
    users = {path.name for path in FILES if any(module.startswith("omegaconf") for module in imports(path))}
    assert users == {"config.py", "settings.py"}


@pytest.mark.parametrize("entry", sorted(ENTRY))
def test_help_does_not_import_torch(entry):
    code = (
        f"import sys, runpy; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('score_lightning.{entry}', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert f"score_lightning.{entry}" in shown.stdout
