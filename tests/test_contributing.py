"""The changes that CONTRIBUTING.md shows apply to the code, and work."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DIFFS = re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?```diff\n(.*?)```", TEXT, re.S | re.M)
FOLDERS = ("score_lightning", "configs", "experiments")

WORKS = """
import torch
from score_lightning import checkpoint, config, train
from score_lightning.experiment import catalog
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.samplers import DDIM
from score_lightning.models import GaussianMixtureModel

experiment = TrainingExperiment(config.load(["schedule.levels=9", "sampler.steps=3"], "plain_digits"))
alpha, sigma = experiment.schedule(torch.arange(9))
torch.testing.assert_close(sigma**2, torch.arange(1, 10, dtype=torch.float64) / 10)
torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(9, dtype=torch.float64))

exact = GaussianMixtureModel(torch.zeros(1, 3), 1.0, torch.ones(1), experiment.schedule)
x_0, t = torch.randn(4, 3), torch.tensor(4)
eps_hat = exact(alpha[4] * x_0 + sigma[4], t).eps
torch.testing.assert_close(experiment.objective(exact, x_0, t, torch.ones_like), (eps_hat - 1).abs().mean(1))

predictor, x, s = experiment.sampler.predictor, torch.randn(20000, 3, dtype=torch.float64), torch.tensor(2)
estimate = exact(x, t)
assert predictor.rho == 0.5
predictor.rho = 0.0
step = DDIM().step(estimate, experiment.schedule, t, s, torch.randn_like)
torch.testing.assert_close(predictor.step(estimate, experiment.schedule, t, s, torch.randn_like), step)
predictor.rho = 0.5
moved = predictor.step(estimate, experiment.schedule, t, s, torch.randn_like)
spread = alpha[2] * estimate.x_0 + sigma[2] * 0.75**0.5 * estimate.eps - moved
assert abs(spread.std() / (0.5 * sigma[2]) - 1) < 0.02

assert sum(p.numel() for p in experiment.model.parameters()) == catalog.describe("plain_digits").parameters
row = catalog.describe("plain_digits")
assert (row.name, row.data) == ("plain_digits", "digits 8 x 8")
assert row.method == "DDPM with convolutions at one resolution on scikit-learn's 8 x 8 digits"
words = ["trainer.max_steps=2", "trainer.progress=false", "validation.n=20", "samples.n=2", "evaluation.n=0"]
train.main(["exp=plain_digits", *words, "logger=off", "out=OUT"])
assert type(checkpoint.load("OUT/plain_digits/0/checkpoints/last.ckpt").net).__name__ == "Plain"
print("works")
"""


def apply(diff, root):
    """Applies a diff whose places are found by their lines, not by numbers; every place must be there once."""
    for change in re.split(r"(?m)^--- ", diff)[1:]:
        old, new, *hunks = re.split(r"\n\+\+\+ |\n@@\n", change.removesuffix("\n"))
        path = root / new.removeprefix("b/")
        if old == "/dev/null":
            assert not path.exists(), path
            assert all(line.startswith("+") for line in hunks[0].splitlines())
            path.write_text("".join(f"{line[1:]}\n" for line in hunks[0].splitlines()), encoding="utf-8")
            continue
        assert old == f"a/{new.removeprefix('b/')}"
        text = path.read_text(encoding="utf-8")
        for hunk in hunks:
            before, after = (
                "".join(f"{line[1:]}\n" for line in hunk.splitlines() if line[0] in s) for s in (" -", " +")
            )
            assert text.count(before) == 1, f"{path}: {before}"
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the code with all changes."""
    root = tmp_path_factory.mktemp("changed")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for _, diff in DIFFS:
        apply(diff, root)
    return root


def do(root, *words):
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_each_kind_of_change_is_shown(changed):
    assert [title for title, _ in DIFFS] == ["A schedule", "An objective", "A sampler", "A network", "An experiment"]
    assert (changed / "experiments/plain_digits.yaml").is_file()


@pytest.mark.slow
def test_the_changes_work(changed):
    assert do(changed, "-c", WORKS.replace("OUT", str(changed / "runs"))).endswith("works\n")


@pytest.mark.slow
def test_the_changes_keep_the_rules(changed):
    (changed / "tests").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests/structure.py", changed / "tests")
    shutil.copy(ROOT / "pyproject.toml", changed)
    assert do(changed, "tests/structure.py") == "the code is in shape\n"
    do(changed, "-m", "ruff", "check", "--no-cache", "score_lightning")
    do(changed, "-m", "ruff", "format", "--no-cache", "--check", "score_lightning")


def test_every_room_of_the_house_is_described():
    rooms = set(re.findall(r"`([\w./]+)`", "".join(re.findall(r"^\| (`.*?) \|", TEXT, re.M))))
    package = ROOT / "score_lightning"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    commands = {path.name for path in package.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()}
    modules = {path.name for path in package.glob("*.py")} - commands - {"__init__.py"}
    assert folders | modules <= rooms
    assert all((package / room).exists() for room in rooms)
