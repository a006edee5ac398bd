"""The experiments of the plane: each trains, draws its figure, and shows what it is said to show."""

import pytest
import torch
from PIL import Image
from support import fails, slow_but
from torch.testing import assert_close

from score_lightning import config, sample, train
from score_lightning import eval as evaluate
from score_lightning.data.toy import draw
from score_lightning.experiment.build import Experiment
from score_lightning.figures import FIGURES, fields, flows, processes
from score_lightning.figures.trained import Trained, arrows, panels, seeded_noise
from score_lightning.models import GaussianMixtureModel
from score_lightning.schedules import VP, geometric

TOYS = [name for name in config.experiments() if name.startswith("toy_")]
QUICK = [
    "trainer.max_steps=6", "trainer.progress=false", "trainer.log_every=1", "validation.every=6", "validation.n=10",
    "samples.n=20", "logger=off", "trainer.batch_size=64", "data.n=3000",
]  # fmt: skip


def test_every_figure_has_an_experiment():
    assert {config.load([], name).figure.name for name in TOYS} == set(FIGURES)


@pytest.fixture
def few_points(monkeypatch):
    """Figures of few points: that they are drawn is asked here, what they show in tests of their own."""
    drawn, run = Trained.draw, processes.run
    monkeypatch.setattr(Trained, "draw", lambda self, n, *given: drawn(self, min(n, 200), *given))
    monkeypatch.setattr(processes, "run", lambda *given: run(*given[:3], 500))
    monkeypatch.setattr(flows, "PAIRS", 2000)
    monkeypatch.setattr(flows, "STEPS", 20)


@pytest.mark.parametrize("name", slow_but({"toy_ddpm"}, TOYS))
@pytest.mark.usefixtures("few_points")
def test_every_toy_trains_and_draws_its_figure(name, tmp_path, capsys):
    resolved = config.load([], name)
    few = ["sampler.steps=3"] if resolved.config.sampler["name"] != "ancestral" else []
    few += ["sampler.rtol=0.01", "sampler.atol=0.01"] if resolved.config.sampler["name"] == "probability_flow" else []
    train.main([f"exp={name}", *QUICK, *few, f"out={tmp_path}"])
    folder = tmp_path / name / "0"
    with Image.open(folder / "figure.png") as figure:
        assert figure.width > 500
    assert (folder / "samples/step_0000006.png").is_file()
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert f"Figure: {folder / 'figure.png'}" in capsys.readouterr().out
    others = [label for label, words in resolved.figure.variants.items() if words]
    assert sorted(p.name for p in folder.glob("variants/*")) == sorted(label.replace(" ", "_") for label in others)


def test_a_run_that_was_stopped_before_its_figure_draws_it(tmp_path, capsys):
    words = ["exp=toy_two_moons", *QUICK, "sampler.steps=3", f"out={tmp_path}", "resume=auto"]
    train.main(words)
    figure = tmp_path / "toy_two_moons/0/figure.png"
    drawn = figure.read_bytes()
    figure.unlink()
    train.main(words)
    assert figure.read_bytes() == drawn
    capsys.readouterr()
    train.main(words)
    assert "has done all its steps" in capsys.readouterr().out


def test_points_are_sampled_and_not_evaluated(tmp_path, capsys, monkeypatch):
    train.main(["exp=toy_two_moons", *QUICK, "sampler.steps=3", f"out={tmp_path}"])
    ckpt = tmp_path / "toy_two_moons/0/checkpoints/last.ckpt"
    sample.main([f"ckpt={ckpt}", "n=30", f"out={tmp_path}/s"])
    import numpy as np

    assert np.load(tmp_path / "s/samples.npz")["points"].shape == (30, 2)
    assert "no metrics of images" in fails(evaluate, [f"ckpt={ckpt}"], capsys, monkeypatch)
    assert "is of images" in fails(sample, [f"ckpt={ckpt}", "task=colorize", "image=x.png"], capsys, monkeypatch)


def test_figures_are_of_points(tmp_path, capsys, monkeypatch):
    for words, message in [
        (["exp=ddpm_digits", "figure=samples"], "figure samples is of points=2; got points=0"),
        (["exp=toy_rings", "figure=circles"], "figure must be one of score_field"),
        (
            ["exp=toy_langevin", "data.set=two_moons"],
            "needs data.set to be one of mixture, pair, tree, trees, pair_1d; got two_moons",
        ),
        (["exp=toy_rings", "figure=objectives", "data.set=mixture"], "compares 3 models; got 1 in variants"),
        (["exp=toy_rings", "trainer.devices=2"], "needs trainer.devices=1"),
        (["exp=toy_rings", "objective=variational_bound"], "of points or floats take denoising"),
        (["exp=toy_rings", "objective=hybrid"], "hybrid needs learned variances"),
    ]:
        assert message in fails(train, [*words, f"out={tmp_path}/runs"], capsys, monkeypatch)
        assert not (tmp_path / "runs").exists()


def test_a_mistake_in_a_variant_is_found_before_the_training(tmp_path, capsys, monkeypatch):
    words = ["exp=toy_objectives", "variants.sliced=[objective=slicd]", f"out={tmp_path}/runs"]
    assert "did you mean sliced?" in fails(train, words, capsys, monkeypatch)
    assert not (tmp_path / "runs").exists()


def test_gradient_ascent_collapses_where_langevin_dynamics_does_not():
    """With the exact score of one Gaussian: all chains at its mean, or with its perturbed standard deviation."""
    schedule = geometric(0.1, 0.1, 1)
    exact = GaussianMixtureModel(torch.tensor([[0.3, -0.2]]), 0.15, torch.ones(1), schedule)
    x = 2 * torch.rand(4000, 2) - 1
    ascended = fields.chain(exact, x, 1e-3, 1000, torch.zeros_like)
    assert_close(ascended, torch.tensor([[0.3, -0.2]]).expand(4000, 2), rtol=0, atol=1e-4)
    moved = fields.chain(exact, x, 1e-3, 1000, seeded_noise(0))
    assert_close(moved.mean(0), torch.tensor([0.3, -0.2]), rtol=0, atol=0.015)
    assert_close(moved.std(0), torch.full((2,), (0.15**2 + 0.1**2) ** 0.5), rtol=0.05, atol=0)


def test_arrows_point_along_the_score():
    exact = GaussianMixtureModel(torch.zeros(1, 2), 0.5, torch.ones(1), geometric(0.1, 0.1, 1))
    _, (axes,) = panels(["score"])
    arrows(axes, exact, torch.tensor(0), 1.0, n=3)
    (drawn,) = axes.collections
    where, direction = torch.tensor(drawn.XY), torch.stack([torch.tensor(part) for part in (drawn.U, drawn.V)], 1)
    assert ((where * direction).sum(1) <= 0).all()  # to the mean, 0
    lengths = direction.norm(dim=1)
    assert lengths.max() == pytest.approx((2**0.5 / 0.26) ** 0.5, rel=1e-3)  # the root of |score| in a corner


def test_the_forward_walk_has_the_marginals_of_its_kernel():
    schedule, n = VP(), 20_000
    x_0 = torch.full((n, 1), 0.7)
    times = schedule.times(50).flip(0)
    path = processes.walk(schedule, x_0, times)
    for i in (0, 10, 49):
        alpha, sigma = schedule(times[i])
        assert path[i].mean().item() == pytest.approx(0.7 * alpha.item(), abs=4 * sigma.item() / n**0.5)
        assert path[i].std().item() == pytest.approx(sigma.item(), rel=0.03)


def test_distances_are_those_of_wasserstein():
    a = torch.randn(50_000, 1)
    assert processes.distance(a + 0.3, a) == pytest.approx(0.3, rel=1e-3)
    b = draw("pair_1d", 50_000, torch.Generator().manual_seed(1))
    exact = GaussianMixtureModel(torch.tensor([[-0.8], [0.6]]), 0.15, torch.tensor([0.4, 0.6]), VP())
    assert processes.distance(exact.draw(50_000)[0], b) < 0.02


def test_a_model_of_points_has_their_dimensions():
    model = Experiment(config.load([], "toy_ddpm")).model
    assert model(torch.zeros(3, 1), torch.tensor(5)).score.shape == (3, 1)
