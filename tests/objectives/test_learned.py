"""Learned weights of the loss: the identity at the optimum, and what they learn."""

import inspect
import math

import pytest
import torch
from support import run
from torch.testing import assert_close

from score_lightning import config
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.models import GaussianModel
from score_lightning.objectives import PRESETS, Denoising, LearnedWeights
from score_lightning.schedules import EDM, VP, RectifiedFlow, linear_beta

MODEL = GaussianModel(torch.zeros(3).double(), torch.full((3,), 0.25).double(), EDM())


def test_the_loss_is_that_of_the_objective_over_exp_u_plus_u():
    learned, x_0 = LearnedWeights(Denoising("edm")).double(), torch.randn(6, 3).double()
    torch.nn.init.normal_(learned.linear.weight, std=0.3)
    t, eps = torch.logspace(-2, 1, 6, dtype=torch.float64), torch.randn(6, 3).double()
    plain = Denoising("edm")(MODEL, x_0, t, lambda _: eps)
    u = learned.u(EDM(), t)
    assert_close(learned(MODEL, x_0, t, lambda _: eps), plain / u.exp() + u, rtol=1e-12, atol=0)
    assert_close(learned.eval()(MODEL, x_0, t, lambda _: eps), plain, rtol=0, atol=0)


def test_the_optimum_is_the_logarithm_of_the_mean_loss():
    """E[L] / e^u + u is least at u = ln E[L], where it is 1 + ln E[L] (Karras et al. 2024b, Eq. 21)."""
    losses = torch.rand(1000, dtype=torch.float64) * 3
    u = losses.mean().log().requires_grad_()
    total = (losses / u.exp() + u).mean()
    assert torch.autograd.grad(total, u)[0].abs() < 1e-12
    assert total.item() == pytest.approx(1 + math.log(losses.mean()), rel=1e-12)


def test_weights_converge_to_the_optimum_of_every_level():
    """Of the exact model of N(0, 0.5^2) the loss of eps is known: its variance given x_t."""
    torch.manual_seed(0)
    learned = LearnedWeights(Denoising()).double()
    optimizer = torch.optim.Adam(learned.parameters(), 0.02)
    schedule = EDM(0.05, 5.0)
    model = GaussianModel(torch.zeros(3).double(), torch.full((3,), 0.25).double(), schedule)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 600)
        n = torch.exp(torch.empty(512, dtype=torch.float64).uniform_(math.log(0.05), math.log(5)))
        optimizer.zero_grad()
        learned(model, 0.5 * torch.randn(512, 3, dtype=torch.float64), n).mean().backward()
        optimizer.step()
    n = torch.logspace(math.log10(0.06), math.log10(4), 30, dtype=torch.float64)
    # eps_hat - eps has variance 1 - n^2 / (n^2 + var)
    exact = (0.25 / (n**2 + 0.25)).log()
    assert (learned.u(schedule, n).detach() - exact).abs().max() < 0.15


@pytest.mark.parametrize("schedule", [VP(), RectifiedFlow(), linear_beta(1e-4, 0.02, 100)], ids=["vp", "flow", "ddpm"])
def test_every_schedule_has_finite_weights_that_start_at_none(schedule):
    learned = LearnedWeights(Denoising())
    ends = torch.stack([schedule.t_min, schedule.t_max])
    assert torch.equal(learned.u(schedule, ends), torch.zeros(2))
    torch.nn.init.ones_(learned.linear.weight)
    assert learned.u(schedule, ends).isfinite().all()


def test_it_is_chosen_by_a_keyword():
    assert isinstance(PRESETS["denoising"](), Denoising)
    assert isinstance(PRESETS["denoising"](learned=True), LearnedWeights)
    keywords, own = (inspect.signature(f).parameters for f in (PRESETS["denoising"], Denoising))
    assert {k: p.default for k, p in keywords.items() if k != "learned"} == {k: p.default for k, p in own.items()}


def test_a_training_learns_them_and_keeps_them(tmp_path):
    folder = run(tmp_path, "objective.learned=true", "trainer.max_steps=4")
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert state["_objective.linear.weight"].abs().max() > 0
    module = TrainingExperiment(config.load(["objective.learned=true"], "ddpm_digits")).module
    assert any(p is module._objective.linear.weight for p in module.trained_parameters())
