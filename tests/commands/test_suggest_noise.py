"""python -m score_lightning.suggest_noise, on images and on mistakes."""

import shlex

import numpy as np
import pytest
from support import fails

from score_lightning import config, suggest_noise
from score_lightning.config import registry
from score_lightning.experiment.build import Experiment


def test_suggestions_can_be_pasted(capsys):
    suggest_noise.main(["data=digits", "images.size=8", "images.channels=1", "n=300", "steps=3"])
    shown = capsys.readouterr().out
    words = shlex.split(shown.strip().splitlines()[-1])
    resolved = config.load(words, "ncsn_digits")
    schedule = registry.build_part(resolved, "schedule", {})
    assert schedule.levels == int(shown.split("L  ")[1].split()[0])
    assert Experiment(resolved).generator().sampler.corrector.steps == 3
    assert "300 images of 64 dimensions in [0, 1]" in shown


def test_images_that_are_all_alike_have_no_suggestion(tmp_path, capsys, monkeypatch):
    np.savez(tmp_path / "same.npz", images=np.zeros((20, 8, 8), np.uint8))
    words = ["data=npz", f"data.path={tmp_path}/same.npz", "images.size=8", "images.channels=1"]
    assert "all images are alike" in fails(suggest_noise, words, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("word", "message"), [("sigma_min=0.0", "sigma_min must be positive"), ("data=dgits", "digits?")]
)
def test_mistakes_get_one_message(word, message, capsys, monkeypatch):
    assert message in fails(suggest_noise, [word], capsys, monkeypatch)
