"""What the README and the pages say is true: commands are understood, Python runs, tables are right."""

import os
import re
import shlex
from functools import partial
from pathlib import Path

import pytest
import torch
from torchvision.datasets import FakeData

from score_lightning import cli, config, export, import_weights, sample, suggest_noise, train
from score_lightning import eval as evaluate
from score_lightning.__main__ import COMMANDS as COMMANDS_OF_ONE
from score_lightning.bench import results
from score_lightning.experiment import catalog, sweeping
from score_lightning.experiment import train as training
from score_lightning.experiment.build import Experiment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in (ROOT / "docs").glob("*.md")}
RECIPES, OWN, THEORY = PAGES["recipes"], PAGES["your_own"], PAGES["theory"]
SHELL = [
    line
    for text in (README, *PAGES.values())
    for block in re.findall(r"```sh\n(.*?)```", text, re.S)
    for line in block.replace("\\\n", "").splitlines()
]
COMMANDS = [shlex.split(line, comments=True) for line in dict.fromkeys(SHELL)]
ENTRIES = {
    "train": train, "sample": sample, "eval": evaluate, "suggest_noise": suggest_noise,
    "import_weights": import_weights, "export": export,
}  # fmt: skip


def run(text, number=0):
    """The names of a page's block of Python, after it ran as a script."""
    block, names = re.findall(r"```python\n(.*?)```", text, re.S)[number], {"__name__": "__main__"}
    exec(block, names)
    return names


def test_python_runs():
    names = run(PAGES["index"])
    assert names["x"].shape == (4, 1, 8, 8)
    assert torch.isfinite(names["loss"])


def test_the_script_that_trains_on_a_data_set_runs(tmp_path, monkeypatch):
    quick = ["trainer.max_steps=1", "trainer.batch_size=4", "validation.n=10", "validation.every=1", "samples.n=0"]
    quick += ["evaluation.n=0", "trainer.progress=false", f"out={tmp_path}"]
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", lambda root, download: FakeData(20, (1, 28, 28)))
    monkeypatch.setattr(
        training,
        "train_on",
        partial(
            lambda fit, images, overrides, **given: fit(images, overrides=[*overrides, *quick], **given),
            training.train_on,
        ),
    )
    assert (run(PAGES["your_images"])["folder"] / "checkpoints/last.ckpt").exists()


@pytest.mark.slow
def test_the_project_and_the_scripts_of_ones_own_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in re.findall(r"```yaml\n(.*?)```", OWN, re.S):
        path = tmp_path / re.match(r"# ([\w/]+\.yaml)", text)[1]
        path.parent.mkdir(parents=True)
        path.write_text(text)
    row = catalog.describe("mine")
    assert (row.name, row.method) == ("./experiments/mine", "experiments/mine.yaml: DDPM with a narrow network")
    train.main(["exp=mine", "trainer.max_steps=2", "evaluation.n=0", "samples.n=0", "validation.n=20", "logger=off"])
    script, objects = re.findall(r"```python\n(.*?)```", OWN, re.S)
    names = {}
    exec(script, names)
    assert names["model"].config["net"] == {"name": "mine", "width": 64}
    assert (tmp_path / "runs/mine/ddpm_digits/0/samples.npz").is_file()
    exec(objects, names)
    assert names["x"].shape == (4, 1, 8, 8)
    assert type(names["experiment"].model.net) is names["Mine"]


def test_python_of_the_evaluation_runs(capsys):
    run(PAGES["evaluation"])
    assert "precision_pixels" in capsys.readouterr().out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_understood(words):
    program, *rest = words
    if program == "pip":
        assert rest[0] == "install"
        return
    if program == "score-lightning":
        assert rest[0] in (*COMMANDS_OF_ONE, "--help")
        if rest[0] == "train":
            assert rest[1] == "exp=mine" or config.load(cli.split_arguments(rest[1:], train.OPTIONS)[1], rest[1][4:])
        return
    if program in ("sbatch", "NODES=2"):  # scripts that hand their words to train
        script = next(word for word in rest if word.endswith(".sh"))
        assert os.access(ROOT / script, os.X_OK)
        assert '-m score_lightning.train "$@" resume=auto' in (ROOT / script).read_text()
        return
    if program == "make":
        target, *given = rest
        values = dict(word.split("=", 1) for word in given)
        args = shlex.split(values.get("ARGS", ""))
        if target == "train":
            config.load(cli.split_arguments(args, train.OPTIONS)[1], values["EXP"])
        elif target == "results":
            config.load(cli.split_arguments(args, results.OPTIONS)[1], values["EXP"])
        else:
            assert target == "eval"
            assert "CKPT" in values
        return
    assert (program, rest[0]) == ("python", "-m")
    entry = rest[1].removeprefix("score_lightning.")
    if entry == "sweep":
        assert sweeping.plan(rest[2:])
        return
    own, others = cli.split_arguments(rest[2:], ENTRIES[entry].OPTIONS)
    exp = own.get("exp", "ddpm_digits_labels" if "labels" in " ".join(others) else "ddpm_digits")
    same, points = evaluate.split_sweep(others)
    for point in points:
        assert Experiment(config.load([*same, *point], exp)).generator()


@pytest.mark.slow
def test_table_lists_every_experiment_with_its_parameters():
    rows = dict(re.findall(r"^\| (\w+) \|.*\| ([\d,]+) \|[^|]*\|$", RECIPES, re.M))
    assert sorted(rows) == config.experiments()
    for name, parameters in rows.items():
        found = catalog.describe(name)
        assert found.parameters == int(parameters.replace(",", "")), name
        row = re.search(rf"^\| {name} \|.*$", RECIPES, re.M)[0]
        toy = name.startswith("toy_")  # whose column has the figure of a paper that it draws
        assert toy or row.endswith(f"| {found.parameters:,} | {found.published or '–'} |"), name


def test_pages_on_the_code_name_files_and_folders_that_are_there():
    text = PAGES["concepts"] + (ROOT / "CONTRIBUTING.md").read_text() + README
    names = re.findall(r"`((?:[\w.]+/)*[\w.]+(?:\.py|/))`", text)
    assert len(set(names)) > 40
    files = {path.name for path in (ROOT / "score_lightning").rglob("*.py")}
    places = (ROOT, ROOT / "score_lightning")
    missing = {name for name in names if name not in files and not any((place / name).exists() for place in places)}
    assert missing <= {"site/"}  # built; not in a clone


def test_the_theory_names_files_pictures_and_experiments_that_are_there():
    files = set(re.findall(r"`([\w/]+\.py)", THEORY))
    inside = {str(path.relative_to(ROOT / "score_lightning")) for path in (ROOT / "score_lightning").rglob("*.py")}
    assert len(files) > 15
    assert {name for name in files if name not in inside and f"samplers/{name}" not in inside} == set()
    pictures = re.findall(r"!\[.*\]\((.*)\)", THEORY)
    assert all((ROOT / "docs" / path).is_file() for path in pictures)
    toys = [name for name in config.experiments() if name.startswith("toy_")]
    assert sorted(set(re.findall(r"`(toy_\w+)`", THEORY))) == toys
    assert len(pictures) == len(toys)
