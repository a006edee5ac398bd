"""The wheel holds all that commands need, wherever they are started."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

import score_lightning
from score_lightning import config
from score_lightning.data import archives, sources
from score_lightning.data.pictures import Shape
from score_lightning.errors import UserError
from score_lightning.experiment.trainer import build_trainer
from score_lightning.experiment.training_experiment import TrainingExperiment

ROOT = Path(__file__).parents[1]
NEEDED = ("score_lightning", "configs", "experiments", "pyproject.toml", "setup.py", "README.md", "LICENSE")
SDIST = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
QUICK = [
    "trainer.max_steps=2", "trainer.batch_size=16", "trainer.progress=false", "validation.n=20", "samples.n=2",
    "preview.steps=2", "evaluation.n=0", "logger=off",
]  # fmt: skip
MINE = "# Mine.\nparts: [data/digits, net/mine, schedule/cosine, objective/denoising, sampler/dpm_solver]\n"


def do(*words, cwd, **environment):
    """What a program prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", **environment}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from a source distribution of this checkout, without network."""
    versions = {dist.name: dist.version for dist in distributions() if dist.name in ("pip", "setuptools")}
    if "pip" not in versions or int(versions.get("setuptools", "0").split(".")[0]) < 77:
        pytest.skip(f"needs pip, and setuptools 77 or later; there are {versions}")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "checkout"
    source.mkdir()
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    do(sys.executable, "-c", SDIST, str(folder), cwd=source)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    do(*build, ".", cwd=folder / "unpacked" / archive.name.removesuffix(".tar.gz"))
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs Python with the wheel, installed into an empty folder, in another working directory."""
    target, cwd = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("elsewhere")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    do(*install, cwd=cwd)
    (cwd / "experiments").mkdir()
    (cwd / "configs/net").mkdir(parents=True)
    (cwd / "experiments/mine.yaml").write_text(MINE + "images: {size: 8, channels: 1}\ntrainer: {max_steps: 1}\n")
    (cwd / "configs/net/mine.yaml").write_text("name: unet_light\nwidths: [16, 16]\n")

    def run(*words):
        return do(sys.executable, *map(str, words), cwd=cwd, PYTHONPATH=str(target))

    run.target, run.cwd = target, cwd
    return run


@pytest.mark.slow
def test_the_wheel_holds_every_module_configuration_and_experiment(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
        (metadata,) = (file.read(name).decode() for name in file.namelist() if name.endswith("/METADATA"))
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "score_lightning").rglob("*.py")}
    yaml = {
        f"score_lightning/shipped/{path.relative_to(ROOT).as_posix()}"
        for name in ("configs", "experiments")
        for path in (ROOT / name).rglob("*")
        if path.is_file()
    }
    assert held == {*modules, *yaml, "score_lightning/py.typed"}
    described = Parser().parsestr(metadata)
    assert described["Version"] == score_lightning.__version__
    assert {"lsun", "datasets", "docs", "bench", "dev"} <= set(described.get_all("Provides-Extra"))


@pytest.mark.slow
def test_an_installed_wheel_trains_samples_and_evaluates_from_another_folder(installed):
    command, folder = installed.target / "bin/score-lightning", installed.cwd / "runs/ddpm_digits/0"
    where = installed("-c", "from score_lightning import config; print(config.__file__, *config.experiments())").split()
    assert Path(where[0]).is_relative_to(installed.target)
    assert where[1:] == sorted([*config.experiments(), "mine"])
    assert "parameters: 128417\n" in installed(command, "train", "exp=ddpm_digits", "dry_run=true")
    printed = installed(command, "train", "exp=ddpm_digits", *QUICK)
    assert "Next: python -m score_lightning.eval ckpt=runs/ddpm_digits/0/checkpoints/last.ckpt" in printed
    ckpt = f"ckpt={folder / 'checkpoints/last.ckpt'}"
    few = ["n=4", "sampler.steps=2", "out=out"]
    assert "Drew 4 images" in installed("-m", "score_lightning.sample", ckpt, *few)
    drawn = (installed.cwd / "out/samples.npz").rename(installed.cwd / "drawn.npz")
    installed(
        command, "eval", ckpt, *few, "seed=1", "evaluation.metrics=[fid]", "features=random", f"reference={drawn}"
    )
    written = json.loads((installed.cwd / "out/metrics.json").read_text())
    assert written["fid_random"] > 0
    assert written["settings"]["versions"]["score_lightning"] == score_lightning.__version__
    assert (installed.cwd / "out/samples.png").is_file()


@pytest.mark.slow
def test_the_command_launches_the_other_processes_of_a_training(installed):
    command = installed.target / "bin/score-lightning"
    words = ["train", "exp=mine", *QUICK, "samples.n=0", "trainer.accelerator=cpu", "trainer.devices=2"]
    assert "Trained 2 steps. Everything is in runs/mine/0" in installed(command, *words)
    assert "Trained 2 steps. Everything is in runs/mine/1" in installed("-m", "score_lightning", *words)


def test_one_version_is_stated():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
    cited = config.read_yaml(ROOT / "CITATION.cff")
    assert cited["version"] == score_lightning.__version__
    assert cited["license"] == project["license"] == "MIT"


OTHER_NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def imported(place):
    """The packages of other projects that a file, or those below a folder, import, by their names in pyproject.toml."""
    for path in [place] if place.suffix == ".py" else place.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in {name.split(".")[0] for name in names} - {"score_lightning", *sys.stdlib_module_names}:
                yield OTHER_NAMES.get(name, name.replace("_", "-"))


def required(requirements):
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements}


def test_every_package_that_is_imported_is_a_dependency_or_of_an_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: required(listed) for name, listed in project["optional-dependencies"].items()}
    everywhere = required(project["dependencies"])
    of_runs = set().union(*(extras[name] for name in ("celeba", "lsun", "datasets", "tensorboard")))
    for path in (ROOT / "score_lightning").iterdir():
        more = extras["bench"] if path.name == "bench" else of_runs
        assert set(imported(path)) <= everywhere | more, path
    assert everywhere - {"wandb"} <= set(imported(ROOT / "score_lightning"))  # which is imported by its name


@pytest.mark.parametrize(("package", "extra"), [("lmdb", "lsun"), ("gdown", "celeba"), ("tensorboard", "tensorboard")])
def test_where_a_package_is_missing_the_message_names_the_extra_that_has_it(package, extra, tmp_path, monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package in required(project["optional-dependencies"][extra])
    monkeypatch.setitem(sys.modules, package, None)
    calls = {
        "lmdb": lambda: archives.lsun(Shape(8, 3), str(tmp_path), "cat"),
        "gdown": lambda: sources.celeba(Shape(8, 3), str(tmp_path)),
        "tensorboard": lambda: build_trainer(experiment, []),
    }
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/data.mdb").touch()
    words = ["logger.tensorboard=true", "logger.wandb=off", f"out={tmp_path}"]
    experiment = TrainingExperiment(config.load(words, "ddpm_digits"))
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard.{name}", False)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'score_lightning\[{extra}\]'$"):
        calls[package]()


def test_every_change_is_tested_on_the_oldest_and_the_newest_supported_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [name.rsplit(" ", 1)[1] for name in project["classifiers"] if "Python :: 3." in name]
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    rows = {row["versions"]: row for row in jobs["test"]["strategy"]["matrix"]["include"]}
    assert rows["oldest"]["python"] == versions[0] == project["requires-python"].removeprefix(">=")
    assert rows["newest"]["python"] == versions[-1]
    assert rows["tested"]["resolve"] in (ROOT / "Makefile").read_text()
    targets = re.findall(r"^([\w -]+):", (ROOT / "Makefile").read_text(), re.M)
    started = [step["run"].split()[:2] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {word for word, _ in started} == {"make"}
    assert {target for _, target in started} == {"lint", "docs", "test", "test-slow"} <= set(" ".join(targets).split())
    words = [step["run"] for step in jobs["test"]["steps"] if "run" in step]
    assert [word.replace(' RESOLVE="${{ matrix.resolve }}"', "") for word in words] == ["make test", "make test-slow"]
