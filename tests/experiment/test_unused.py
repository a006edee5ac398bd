"""Settings without effect are said or refused."""

import numpy as np
import pytest
from support import fails, run

from score_lightning import config, sample, train
from score_lightning import eval as evaluation
from score_lightning.config import defaults
from score_lightning.experiment.checks import check_attention
from score_lightning.experiment.unused import OF_METRICS, RULES, UNUSED, unused
from score_lightning.runtime.nested import flatten


def said(exp, work, *words):
    resolved = config.load(words, exp)
    return list(unused(resolved.config, [key for key, o in resolved.origins.items() if o == "command line"], work))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["labels.drop=0.2"], "labels.drop (labels.classes is not set)"),
        (["sigma_data=0.3"], "sigma_data (prediction is not edm)"),
        (["ema.decay=0", "ema.warmup=false"], "ema.warmup (ema.decay=0)"),
        (["samples.n=0", "samples.every=7"], "samples.every (samples.n=0)"),
        (["evaluation.n=0", "evaluation.splits=2"], "evaluation.splits (evaluation.n=0)"),
        (["evaluation.metrics=[fid]", "evaluation.splits=2"], "evaluation.splits (evaluation.metrics has no is)"),
        (
            ["evaluation.metrics=[is]", "evaluation.kid_subsets=2"],
            "evaluation.kid_subsets (evaluation.metrics has",
        ),
        (["samples.n=0", "evaluation.n=0", "preview.steps=2"], "preview.steps (samples.n=0 and evaluation.n=0)"),
        (["logger=off", "logger.project=mine"], "logger.project (logger.wandb=off)"),
        (["data=npz", "images.resize=bilinear"], "images.resize (images of an npz file are never resized)"),
    ],
)
def test_a_setting_that_a_training_does_not_use_is_named(words, reason):
    assert [part for part in said("ddpm_digits", "train", *words) if part.startswith(reason)]


@pytest.mark.parametrize(
    "words",
    [
        ["samples.every=7", "evaluation.splits=2", "evaluation.kid_subsets=2", "preview.steps=2"],
        ["logger.project=mine", "logger.artifact=true", "images.resize=bilinear"],
        ["labels.classes=10", "labels.drop=0.2"],
        ["prediction=edm", "sigma_data=0.3"],
        ["samples.n=0", "preview.steps=2", "evaluation.batch_size=8"],
    ],
)
def test_a_setting_that_a_training_uses_is_not_named(words):
    assert said("ddpm_digits", "train", *words) == []


def test_points_use_no_settings_of_images():
    assert sorted(said("toy_rings", "train", "images.flip=true", "evaluation.n=3")) == [
        "evaluation.n (points have no metrics)",
        "images.flip (data are points)",
    ]


def test_only_what_was_typed_is_named():
    for name in config.experiments():
        assert said(name, "train") == []


def test_rules_name_settings_that_there_are():
    known = flatten(defaults())
    for key in {key for rule in (*RULES, *OF_METRICS) for key in rule.keys} | {
        k for keys in UNUSED.values() for k in keys
    }:
        assert any(name == key or name.startswith(f"{key}.") for name in known) or key in config.defaults(), key


def test_training_sampling_and_evaluation_say_so(ckpt, tmp_path, capsys):
    run(tmp_path, "samples.n=0", "evaluation.n=0", "trainer.max_steps=1", "labels.drop=0.3", "validation.every=1")
    assert "without effect: " in (out := capsys.readouterr().out)
    assert "labels.drop (labels.classes is not set)" in out
    sample.main([f"ckpt={ckpt}", "n=2", f"out={tmp_path}", "optimizer.lr=1", "sampler.steps=2"])
    assert "without effect: optimizer.lr (not used by sample)\n" in capsys.readouterr().out
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8))
    words = [f"images={tmp_path}/x.npz", f"reference={tmp_path}/x.npz", "features=random", "evaluation.metrics=[fid]"]
    evaluation.main([*words, f"out={tmp_path}", "trainer.batch_size=3"])
    assert "without effect: trainer.batch_size (not used by eval images=)\n" in capsys.readouterr().out


def test_attention_at_no_level_is_refused_with_those_there_are(tmp_path, capsys, monkeypatch):
    words = ["exp=ddpm_cifar", "images.size=48", "logger=off", f"out={tmp_path}", "dry_run=true"]
    message = fails(train, words, capsys, monkeypatch)
    assert "net.attention=[16]: there are no levels of 16 pixels" in message
    assert "there are [48, 24, 12, 6]; set net.attention=[12], or [] for none" in message
    for name in config.experiments():
        check_attention(config.load([], name).config)
