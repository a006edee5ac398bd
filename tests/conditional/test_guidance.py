"""Guidance by a worse model, and in an interval of noise levels, for labels and guides."""

import copy
import re

import pytest
import torch
from PIL import Image
from support import fails, run
from torch.testing import assert_close

from score_lightning import checkpoint, config, sample
from score_lightning.conditional import Guided, LabelConditioned, Strength, Wrapper
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.experiment.checks import guidance_strength
from score_lightning.experiment.loading import guidance_settings
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.experiment.unused import unused
from score_lightning.likelihood import continuous
from score_lightning.models import GaussianModel
from score_lightning.samplers import DDIM, ProbabilityFlow, Sampler
from score_lightning.samplers import sample as draw
from score_lightning.schedules import EDM, VP, linear_beta

T = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
LEVELS = VP().ratio(T)


def gaussian(std, schedule):
    """The exact model of N(0, std^2 I) in three dimensions."""
    return GaussianModel(torch.zeros(3).double(), torch.full((3,), std**2).double(), schedule)


class Counted(Wrapper):
    """A model that counts its evaluations."""

    def __init__(self, model):
        super().__init__(model)
        self.calls = 0

    def __call__(self, x_t, t):
        self.calls += 1
        return self.model(x_t, t)


@pytest.mark.parametrize("w", [0.0, 0.7, 2.0, -1.0])
def test_all_readings_are_combined_alike(w):
    model, guide, x = gaussian(0.3, VP()), gaussian(0.6, VP()), torch.randn(3, 3, dtype=torch.float64)
    guided, good, bad = Guided(model, guide, Strength(w))(x, T), model(x, T), guide(x, T)
    for reading in ("x_0", "eps", "score"):
        expected = (1 + w) * getattr(good, reading) - w * getattr(bad, reading)
        assert_close(getattr(guided, reading), expected, rtol=1e-9, atol=1e-9)


def test_guided_gaussians_are_narrower_by_the_product_of_their_densities():
    """p^(1 + w) / p'^w of Gaussians at each level: precisions add up, and the model is exact at the least noise."""
    model, guide, t = gaussian(0.3, EDM()), gaussian(0.6, EDM()), torch.tensor(0.002, dtype=torch.float64)
    x = torch.randn(4, 3, dtype=torch.float64)
    precision = 2.5 / (0.09 + 0.002**2) - 1.5 / (0.36 + 0.002**2)
    assert_close(Guided(model, guide, Strength(1.5))(x, t).score, -precision * x, rtol=1e-6, atol=0)


def test_outside_of_the_interval_there_is_none_and_the_guide_rests():
    model, guide = gaussian(0.3, VP()), Counted(gaussian(0.6, VP()))
    x = torch.randn(3, 3, dtype=torch.float64)
    some = Guided(model, guide, Strength(2.0, LEVELS[1].item() * 0.9, LEVELS[1].item() * 1.1))
    every = Guided(model, guide, Strength(2.0))
    assert_close(some(x, T).x_0, torch.where(torch.arange(3)[:, None] == 1, every(x, T).x_0, model(x, T).x_0))
    guide.calls = 0
    for t, calls in zip(T, (0, 1, 1), strict=True):
        some(x, t)
        assert guide.calls == calls
    assert torch.equal(some(x, T[0]).x_0, model(x, T[0]).x_0)


def test_labels_are_guided_in_an_interval_too():
    calls = []

    def model(x_t, t, labels):
        calls.append(labels)
        return gaussian(0.3 if labels[0] >= 0 else 0.6, VP())(x_t, t)

    model.schedule = VP()
    x, labels = torch.randn(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    guided = LabelConditioned(model, labels, Strength(1.0, 0.0, LEVELS[1].item()))
    assert torch.equal(guided(x, T[2]).eps, gaussian(0.3, VP())(x, T[2]).eps)
    assert len(calls) == 1
    guided(x, T[0])
    assert len(calls) == 3


def test_a_copy_with_another_schedule_leaves_the_guide_alone():
    levels = linear_beta(1e-4, 0.02, 100)
    guided = Guided(gaussian(0.3, levels), gaussian(0.6, levels), Strength(1.0))
    limit = continuous(guided)
    assert limit.schedule.has_sde
    assert limit._guide.schedule is limit.schedule
    assert guided.schedule is levels
    assert guided._guide.schedule is levels


def test_any_sampler_takes_it():
    model = Guided(gaussian(0.3, VP()), gaussian(0.6, VP()), Strength(1.0))
    x = draw(model, torch.randn(500, 3, dtype=torch.float64), VP().times(30), DDIM())
    assert x.std().item() < 0.3


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (-1.0, 2.0), (float("nan"), 1.0)])
def test_an_empty_interval_is_refused(ends):
    with pytest.raises(ValueError, match="0 <= low < high"):
        Strength(1.0, *ends)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Checkpoints of two short trainings of the digits, of different lengths."""
    out = tmp_path_factory.mktemp("guides")
    folders = [run(out / name, f"trainer.max_steps={steps}") for name, steps in (("long", 6), ("short", 2))]
    return [folder / "checkpoints/last.ckpt" for folder in folders]


def test_a_guide_changes_samples_and_counts(trained, tmp_path):
    model, guide = trained
    words = [f"guide={guide}", "guidance=1.5", "sampler=dpm_solver", "sampler.steps=4"]
    images = []
    for i, more in enumerate([[], words, [*words, "guidance_interval=[0.5,2]"]]):
        sample.main(
            [f"ckpt={model}", "n=3", f"out={tmp_path / str(i)}", "sampler=dpm_solver", "sampler.steps=4", *more]
        )
        images.append((tmp_path / str(i) / "samples.npz").read_bytes())
    assert len(set(images)) == 3
    experiment = checkpoint.open_checkpoint(model, words).experiment
    assert experiment.generator().evaluations(experiment.model) == 8
    same = checkpoint.open_checkpoint(model, [f"guide={model}", *words[1:]]).experiment
    plain = checkpoint.open_checkpoint(model, words[2:]).experiment
    drawn = [e.generator().batch(e.model, range(3), 0).images.int() for e in (same, plain)]
    assert (drawn[0] - drawn[1]).abs().max() <= 1  # a model is no guide of itself


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["guide={guide}"], r"guide=.* needs guidance=W"),
        (["guidance=2"], r"guidance=W needs guide=CKPT; for labels there is labels.guidance"),
        (["guide=nothing.ckpt", "guidance=1"], "nothing.ckpt"),
        (["guide={guide}", "guidance=1", "guidance_interval=[3,1]"], "0 <= low < high"),
        (["guide={guide}", "guidance=1", "guidance_interval=[3]"], "give two noise levels"),
        (["guide={guide}", "guidance=1", "guidance_interval=[1e6,1e7]"], "visits no noise level there"),
        (["guide={other}", "guidance=1"], "noise levels"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_work(trained, words, message, tmp_path, capsys, monkeypatch):
    contents = torch.load(trained[1], weights_only=True)
    contents["config"] = copy.deepcopy(contents["config"])
    contents["config"]["schedule"]["beta_max"] = 0.03
    torch.save(contents, tmp_path / "other.ckpt")
    given = [word.format(guide=trained[1], other=tmp_path / "other.ckpt") for word in words]
    said = fails(
        sample, [f"ckpt={trained[0]}", f"out={tmp_path / 'out'}", "sampler.steps=5", *given], capsys, monkeypatch
    )
    assert re.search(message, said), said
    assert not (tmp_path / "out").exists()


def test_a_training_has_no_use_for_a_guide():
    with pytest.raises(UserError, match="are of sample and eval"):
        _ = TrainingExperiment(config.load(["guide=some.ckpt", "guidance=1"], "ddpm_digits")).module


def test_an_interval_without_guidance_is_without_effect():
    resolved = config.load(["guidance_interval=[1,2]"], "ddpm_digits")
    assert list(unused(resolved.config, ["guidance_interval"], "sample"))
    assert Experiment(resolved).generator().guidance == Strength(0.0, 1.0, 2.0)


def test_metrics_state_the_guidance(trained):
    words = [f"guide={trained[1]}", "guidance=1.5", "guidance_interval=[0.5,2]"]
    stated = guidance_settings(checkpoint.open_checkpoint(trained[0], words).experiment)
    assert (stated["guide"], stated["guidance"], stated["guidance_interval"]) == (str(trained[1]), 1.5, [0.5, 2])
    assert len(stated["guide_sha256"]) == 64
    assert guidance_settings(checkpoint.open_checkpoint(trained[0], []).experiment) == {}


def test_an_adaptive_solver_passes_all_levels_between_its_ends():
    c = config.load(["guidance_interval=[0.5,2]"], "ddpm_digits").config
    sampler = Sampler(ProbabilityFlow(), steps=2)
    assert guidance_strength(c, 1.0, sampler, VP()) == Strength(1.0, 0.5, 2.0)
    c = config.load(["guidance_interval=[1e6,1e7]"], "ddpm_digits").config
    with pytest.raises(UserError, match="visits no noise level there"):
        guidance_strength(c, 1.0, sampler, VP())


def test_editing_visits_fewer_levels_and_interpolation_is_not_guided(trained, tmp_path, capsys, monkeypatch):
    picture = tmp_path / "picture.png"
    Image.new("L", (8, 8), 100).save(picture)
    guided = [f"ckpt={trained[0]}", f"guide={trained[1]}", "guidance=1", f"out={tmp_path / 'out'}", "sampler.steps=20"]
    edit = [*guided, "task=edit", f"image={picture}", "strength=0.3", "guidance_interval=[8,1000]"]
    assert "visits no noise level there" in fails(sample, edit, capsys, monkeypatch)
    between = [*guided, "task=interpolate", f"image=[{picture},{picture}]"]
    assert "task=interpolate is not guided" in fails(sample, between, capsys, monkeypatch)
