"""Several trainings in one command."""

import csv
import json
import signal
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf
from support import QUICK, fails

from score_lightning import config, sweep
from score_lightning.experiment import sweeping


def test_lists_are_multiplied_and_each_has_its_folder():
    words = ["exp=[ddpm_digits,ncsn_digits]", "seed=[0,1]", "optimizer.betas=[[0.9,0.99],[0.9,0.999]]", "out=there"]
    points = sweeping.plan([*words, "images.range=[0,1]"])
    assert len(points) == 8
    assert points[0].label == "exp=ddpm_digits seed=0 optimizer.betas=[0.9,0.99]"
    assert {point.exp for point in points} == {"ddpm_digits", "ncsn_digits"}
    assert len({point.out for point in points}) == 4
    assert all("images.range=[0,1]" in point.arguments for point in points)
    assert config.load(points[-1].overrides, "ncsn_digits").config.optimizer.betas == [0.9, 0.999]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_trainings_run_one_after_another_and_are_compared(tmp_path):
    quick = [word for word in QUICK if "evaluation" not in word]
    words = ["exp=ddpm_digits", "seed=[0,1]", *quick, "evaluation.n=12", f"out={tmp_path}"]
    sweep.main(words)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row["training"] for row in rows] == ["seed=0", "seed=1"]
    for row in rows:
        metrics = json.loads((tmp_path / row["training"] / "ddpm_digits/0/metrics.json").read_text())
        assert float(row["fid_classifier"]) == pytest.approx(metrics["fid_classifier"], rel=1e-3)
    assert rows[0]["fid_classifier"] != rows[1]["fid_classifier"]


@pytest.mark.slow
@pytest.mark.usefixtures("forked")
def test_a_sweep_that_is_done_trains_nothing_again(tmp_path, capfd):
    words = ["exp=ddpm_digits", "seed=[0,1]", *QUICK, "evaluation.n=0", "samples.n=0", f"out={tmp_path}"]
    words = list({word.split("=")[0]: word for word in words}.values())
    sweep.main(words)
    capfd.readouterr()
    sweep.main(words)
    assert capfd.readouterr().out.count("has done all its steps") == 2


@pytest.mark.slow
def test_a_signal_reaches_the_training_and_the_sweep_goes_on_later(tmp_path):
    quick = [word for word in QUICK if not word.startswith(("trainer.max_steps", "evaluation", "samples"))]
    words = ["exp=ddpm_digits", "seed=[0,1]", *quick, "trainer.max_steps=100000", "samples.n=0", "evaluation.n=0"]
    program = [sys.executable, "-m", "score_lightning.sweep", *words, f"out={tmp_path}"]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "seed=0/ddpm_digits/0/metrics.csv"
    while process.poll() is None and not log.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75, error
    assert list((tmp_path / "seed=0/ddpm_digits/0/checkpoints").glob("step_*.ckpt"))
    assert not (tmp_path / "seed=1").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=[0,1]"], "exp=NAME is missing"),
        (["exp=[ddpm_digits,ddpm]", "seed=0"], "unknown experiment 'ddpm'"),
        (["exp=ddpm_digits", "seed=[]"], "the list is empty"),
        (["exp=ddpm_digits", "optimizer.lr=[0.1,much]"], "optimizer.lr"),
    ],
)
def test_mistakes_are_found_before_the_first_training(words, message, capsys, monkeypatch):
    assert message in fails(sweep, words, capsys, monkeypatch)


def test_the_sweep_of_wandb_gives_words_that_train_understands():
    described = OmegaConf.to_container(OmegaConf.load(config.ROOT / "docs/wandb_sweep.yaml"))
    first = {
        key: value.get("value", value.get("values", [value.get("min")])[0])
        for key, value in described["parameters"].items()
    }
    assert described["command"][2:] == ["-m", "${program}", "${args_no_hyphens}"]
    exp = first.pop("exp")
    resolved = config.load([f"{key}={value}" for key, value in first.items()], exp)
    assert resolved.config.optimizer.lr == 0.0005
