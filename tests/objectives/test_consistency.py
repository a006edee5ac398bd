"""Consistency training: denoising where r = 0, and on a Gaussian its known flow map, which an MLP learns."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from score_lightning.models import Estimate, ScoreModel
from score_lightning.models.estimate import X_0
from score_lightning.networks.mlp import MLP
from score_lightning.objectives import Consistency, Denoising
from score_lightning.schedules import EDM, VE, VP, RectifiedFlow, SubVP, geometric, linear_beta
from score_lightning.training.step_callbacks import TrainingProgress

MEAN, STD = 0.7, 0.5
CONTINUOUS = {"edm": EDM(), "ve": VE(), "vp": VP(), "sub_vp": SubVP()}


def sine(schedule, prediction="edm"):
    """A model with an arbitrary smooth network, data (4, 3), noise and times."""
    x_0, eps = torch.randn(2, 4, 3, dtype=torch.float64)
    model = ScoreModel(lambda x, c: torch.sin(x) + 0.1 * c[:, None], schedule, prediction)
    return model, x_0, eps, schedule.time_of(torch.tensor([0.3, 0.9, 2.0, 7.0]).double())


class FlowMap:
    """f = m + (x - m) s / sqrt(s^2 + n^2) of N(m, s^2) for alpha = 1, plus delta (x - m)."""

    schedule = EDM(1e-3, 80)

    def __init__(self, delta):
        self.delta = delta

    def __call__(self, x_t, t):
        alpha, sigma = (a.view(-1, 1) for a in self.schedule(t))
        slope = STD / (STD**2 + sigma**2).sqrt() + self.delta
        return Estimate(x_t, alpha, sigma, MEAN + slope * (x_t - MEAN), X_0)


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_from_the_data_themselves_it_is_denoising(schedule):
    """Geng et al. 2024, Sec. 3: with r = 0 and the weight 1 / n it is n |eps_hat - eps|^2."""
    model, x_0, eps, t = sine(schedule)
    objective = Consistency(q=1.001, stages=1, c=None)
    n = schedule.ratio(t)
    assert_close(objective.earlier(n), torch.zeros_like(n))
    assert_close(
        objective(model, x_0, t, lambda x: eps), n * Denoising()(model, x_0, t, lambda x: eps), rtol=1e-9, atol=0
    )


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_it_is_the_distance_of_two_readings_over_their_difference_in_noise(schedule):
    model, x_0, eps, t = sine(schedule)
    n = schedule.ratio(t)
    r = schedule.time_of(n * (1 - (1 + 8 * torch.sigmoid(-n)) / 16))
    readings = []
    for time in (t, r):
        alpha, sigma = (a[:, None] for a in schedule(time))
        readings.append(model(alpha * x_0 + sigma * eps, time).x_0)
    d2 = (readings[0] - readings[1]).square().mean(1)
    for c, distance in [(None, d2), (0.0, d2.sqrt()), (0.3, (d2 + 0.09).sqrt() - 0.3)]:
        loss = Consistency(q=16, stages=1, c=c)(model, x_0, t, lambda x: eps)
        assert_close(loss, distance / (n - schedule.ratio(r)), rtol=1e-9, atol=0)


def test_the_earlier_time_is_that_of_geng_et_al_in_every_stage():
    """Geng et al. 2024, with q = 2: 0 where the share is more than 1."""
    objective, n = Consistency(q=2, stages=4, k=8, b=1), torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64)
    for progress, stage in [(0.0, 0), (0.24, 0), (0.25, 1), (0.5, 2), (0.99, 3), (1.0, 3)]:
        objective.progress = progress
        expected = [a * max(0, 1 - (1 + 8 / (1 + math.exp(a))) / 2 ** (stage + 1)) for a in n.tolist()]
        assert objective.earlier(n).tolist() == pytest.approx(expected, rel=1e-12)
    assert Consistency(q=2, stages=4).earlier(n).tolist() == pytest.approx(expected), "that of the end but in training"


def test_a_time_below_the_schedules_first_is_that_of_the_data():
    model, x_0, eps, _ = sine(EDM(0.1, 80))
    t = torch.full((4,), 0.15, dtype=torch.float64)
    loss = Consistency(q=2, stages=1, k=0, c=None)(model, x_0, t, lambda x: eps)  # r = 0.075
    assert_close(loss, (model(x_0 + 0.15 * eps, t).x_0 - x_0).square().mean(1) / 0.15, rtol=1e-9, atol=0)


def test_the_flow_map_of_a_gaussian_is_stationary_as_r_approaches_t():
    """Its slope along x - m, exact by Gauss-Hermite nodes, is 2 (a_t (s^2 + t^2) - a_r (s^2 + t r)) / (t - r)."""
    nodes = torch.tensor([-1.0, 1.0], dtype=torch.float64)  # exact for squares
    x_0, eps = MEAN + STD * nodes.repeat(2)[:, None], nodes.repeat_interleave(2)[:, None]
    t, slopes = torch.tensor(0.8, dtype=torch.float64), []
    for q in (4, 1000, 2000, 4000):
        delta = torch.zeros((), dtype=torch.float64, requires_grad=True)
        loss = Consistency(q=q, stages=1, k=0, c=None)(FlowMap(delta), x_0, t, lambda x: eps).mean()
        slopes.append(torch.autograd.grad(loss, delta)[0].item())
    r, a = 0.6, lambda n: STD / math.hypot(STD, n)
    exact = 2 * (a(0.8) * (STD**2 + 0.64) - a(r) * (STD**2 + 0.8 * r)) / (0.8 - r)
    assert slopes[0] == pytest.approx(exact, rel=1e-9)
    assert abs(slopes[1]) < 2e-3
    assert slopes[2] == pytest.approx(slopes[1] / 2, rel=1e-2)
    assert slopes[3] == pytest.approx(slopes[1] / 4, rel=1e-2)


def test_pure_noise_is_refused():
    with pytest.raises(ValueError, match=r"finite sigma / alpha.*take schedule=edm"):
        Consistency().check(RectifiedFlow(), 2)


@pytest.mark.slow
def test_an_mlp_learns_the_flow_map_of_a_gaussian():
    """To 0.05 in each coordinate at every level; E[x_0 | x_t] would be 0.15 away at n = 0.5 and 0.4 at n = 3."""
    torch.manual_seed(0)
    schedule, objective = EDM(0.01, 10), Consistency(q=2, stages=8, log_mean=-0.5, log_std=1.2, stratified=True)
    model = ScoreModel(MLP(dim=2, width=32, layers=2, scale=8.0), schedule, "edm", "edm", STD)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    steps = 1500
    for step in range(steps):
        objective.progress = step / steps
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        x_0 = MEAN + STD * torch.randn(256, 2)
        t = objective.draw_t(schedule, (torch.arange(256) + torch.rand(256)) / 256)
        optimizer.zero_grad()
        objective(model, x_0, t).mean().backward()
        optimizer.step()
    errors = {}
    for n in (0.05, 0.2, 0.5, 1.0, 3.0, 10.0):
        x = MEAN + math.hypot(STD, n) * torch.randn(4000, 2)
        exact = MEAN + (x - MEAN) * STD / math.hypot(STD, n)
        with torch.no_grad():
            errors[n] = (model(x, torch.tensor(n)).x_0 - exact).square().mean().sqrt().item()
    assert max(errors.values()) < 0.05, errors


def test_dropout_is_the_same_at_both_times_and_continues_from_there():
    net = nn.Dropout(0.5)
    model = ScoreModel(lambda x, c: net(x), EDM(), "x_0")
    objective, x_0 = Consistency(q=1e9, stages=1, k=0, c=0.0), torch.randn(4, 100, dtype=torch.float64)
    t = torch.ones(4, dtype=torch.float64)
    losses = objective(model, x_0, t)
    assert (losses < 3).all()  # |eps| sqrt(2) = 1.4; with other masks 1e9
    assert not torch.equal(net(x_0) == 0, net(x_0) == 0)


def test_times_are_log_normal():
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    log = VP().ratio(Consistency(log_mean=-0.4, log_std=0.8).draw_t(VP(), u)).log()
    assert (log.mean().item(), log.std().item()) == (pytest.approx(-0.4, abs=1e-3), pytest.approx(0.8, abs=1e-3))


def test_a_loss_of_zero_has_a_gradient():
    model = ScoreModel(lambda x, c: x, EDM(), "x_0")
    x_0, t = torch.zeros(2, 3, requires_grad=True), torch.ones(2)
    loss = Consistency()(model, x_0, t, torch.zeros_like).sum()
    (gradient,) = torch.autograd.grad(loss, x_0)
    assert loss.item() < 1e-15
    assert torch.equal(gradient, torch.zeros_like(x_0))


def test_training_sets_its_progress():
    objective = Consistency()
    TrainingProgress(objective).on_train_batch_start(SimpleNamespace(global_step=30, max_steps=120), None, None, 0)
    assert objective.progress == 0.25


def test_discrete_levels_and_bad_settings_are_refused():
    for schedule in (linear_beta(1e-4, 0.02, 1000), geometric(0.01, 1, 10)):
        with pytest.raises(ValueError, match=r"have none between them: take .*continuous=true.*schedule=edm, vp or ve"):
            Consistency().check(schedule, 4)
        Consistency().check(schedule.continuous(), 4)
    for wrong in ({"q": 1.0}, {"stages": 0}, {"k": -1.0}, {"b": -1.0}, {"c": -0.1}, {"log_std": 0.0}):
        with pytest.raises(ValueError, match="consistency needs q > 1, stages >= 1"):
            Consistency(**wrong)
