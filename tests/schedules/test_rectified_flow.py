"""Rectified flow: a schedule that ends at pure noise, the velocity, and everything that starts there."""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from score_lightning.likelihood import bits_per_dim, decode, encode
from score_lightning.models import GaussianMixtureModel, GaussianModel, ScoreModel
from score_lightning.networks import MLP
from score_lightning.objectives import Denoising
from score_lightning.samplers import (
    DDIM,
    Ancestral,
    DPMSolverPP,
    EulerMaruyama,
    Heun,
    ProbabilityFlow,
    ReverseDiffusion,
    Sampler,
    sample,
)
from score_lightning.schedules import VP, RectifiedFlow

FLOW = RectifiedFlow()
MEANS = torch.tensor([[0.8, 0.1], [-0.5, 0.4]], dtype=torch.float64)
NORMAL = torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64)  # N(0.3, 0.5^2)


def mixture(schedule):
    """The exact model of two Gaussians in the plane."""
    return GaussianMixtureModel(MEANS, 0.3, torch.tensor([1.0, 2.0], dtype=torch.float64), schedule)


def untrained(schedule, prediction="velocity"):
    """A random network of coordinates (B, 2), in float64."""
    torch.manual_seed(0)
    return ScoreModel(MLP(2).double(), schedule, prediction)


def exact(x, t, s):
    """The flow from time t to s on N(0.3, 0.5^2): x - alpha mean grows in proportion to the standard deviation."""
    std = [torch.sqrt((1 - time) ** 2 * 0.25 + time**2) for time in (t, s)]
    return (1 - s) * 0.3 + (x - (1 - t) * 0.3) * std[1] / std[0]


def test_the_kernel_is_a_straight_line_and_its_sde_follows():
    t = torch.tensor([1e-5, 0.2, 0.7, 1.0], dtype=torch.float64)
    alpha, sigma = FLOW(t)
    assert_close(alpha, 1 - t, rtol=0, atol=0)
    assert_close(sigma, t, rtol=0, atol=0)
    assert_close(FLOW.drift(t[:3]), -1 / (1 - t[:3]), rtol=1e-12, atol=0)
    assert_close(FLOW.diffusion2(t[:3]), 2 * t[:3] / (1 - t[:3]), rtol=1e-12, atol=0)
    assert_close(FLOW.time_of(FLOW.ratio(t)), t, rtol=1e-12, atol=0)


def test_samplers_end_at_a_thousandth_or_where_they_are_to():
    assert Sampler(DDIM(), steps=3).times(FLOW).tolist() == pytest.approx([1, 0.5005, 0.001])
    assert Sampler(DDIM(), steps=4, end=0.25).times(FLOW).tolist() == [1, 0.75, 0.5, 0.25]
    assert Sampler(DDIM(), steps=1).times(FLOW).tolist() == [1]
    assert FLOW.times(2).tolist() == [1, 1e-5]


@pytest.mark.parametrize("prediction", ["velocity", "v", "x_0"])
def test_readings_are_finite_and_agree_at_every_time(prediction):
    model, x = untrained(FLOW, prediction), torch.randn(5, 2, dtype=torch.float64)
    for t in (1.0, 0.5, 1e-5):
        estimate = model(x, torch.tensor(t, dtype=torch.float64))
        assert_close((1 - t) * estimate.x_0 + t * estimate.eps, x, rtol=1e-9, atol=1e-9)
        assert_close(estimate.velocity, estimate.eps - estimate.x_0)
        if prediction == "velocity":
            assert_close(estimate.velocity, estimate.output, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0.01, 0.4, 0.97])
def test_the_flow_matching_loss_is_a_weighted_denoising_loss(t):
    """|u - (eps - x_0)|^2 (Lipman et al. 2023, Eq. 23) is |eps_hat - eps|^2 / alpha^2."""
    model, x_0, time = untrained(FLOW), torch.randn(6, 2, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)
    eps = torch.randn_like(x_0)
    x_t = (1 - time) * x_0 + time * eps
    u = model.net(x_t, (time * 999).expand(6))
    by_hand = (u - (eps - x_0)).square().mean(1)
    loss = Denoising("velocity")(model, x_0, time, lambda _: eps)
    assert_close(loss, by_hand, rtol=1e-9, atol=1e-12)
    assert_close((model(x_t, time).eps - eps).square().mean(1) / (1 - time) ** 2, by_hand, rtol=1e-9, atol=1e-12)
    lambda_ = Denoising("velocity")._weight(FLOW, time)
    assert_close(lambda_ * (model(x_t, time).score + eps / time).square().mean(1), by_hand, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", [VP(), FLOW], ids=["vp", "flow"])
def test_the_velocity_weight_is_of_every_schedule(schedule):
    model, x_0 = untrained(schedule, "v"), torch.randn(4, 2, dtype=torch.float64)
    t, eps = torch.tensor([0.1, 0.3, 0.6, 0.9], dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    alpha, sigma = (a[:, None] for a in schedule(t))
    estimate = model(alpha * x_0 + sigma * eps, t)
    by_score = Denoising("velocity")._weight(schedule, t) * (estimate.score + eps / sigma).square().mean(1)
    assert_close(Denoising("velocity")(model, x_0, t, lambda _: eps), by_score, rtol=1e-9, atol=1e-12)


def test_the_loss_is_finite_at_pure_noise():
    model, x_0 = untrained(FLOW), torch.randn(3, 2, dtype=torch.float64)
    one, eps = torch.ones((), dtype=torch.float64), torch.randn_like(x_0)
    assert_close(
        Denoising("velocity")(model, x_0, one, lambda _: eps),
        (model.net(eps, torch.full((3,), 999.0, dtype=torch.float64)) - eps + x_0).square().mean(1),
    )


def test_log_normal_times_are_logit_normal():
    """ln(sigma / alpha) = ln(t / (1 - t)), so that log_mean and log_std are those of Esser et al. 2024, Eq. 19."""
    u = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=torch.float64)
    t = Denoising("velocity", times="log_normal", log_mean=0.0, log_std=1.0).draw_t(FLOW, u)
    assert_close(t, torch.sigmoid(torch.special.ndtri(u)), rtol=1e-9, atol=0)


def test_euler_in_time_is_ddim():
    model, x, times = mixture(FLOW), torch.randn(7, 2, dtype=torch.float64), FLOW.times(9, end=1 / 9)
    drawn = sample(model, x, times, DDIM())
    for t, s in pairwise([*times, torch.zeros((), dtype=torch.float64)]):
        x = x + (s - t) * model(x, t).velocity
    assert_close(drawn, x, rtol=1e-12, atol=1e-12)


def test_heun_is_the_trapezoid_in_time():
    model, x = mixture(FLOW), torch.randn(7, 2, dtype=torch.float64)
    t, s = FLOW.times(2)
    first = model(x, t).velocity
    by_hand = x + (s - t) * (first + model(x + (s - t) * first, s).velocity) / 2
    assert_close(sample(model, x, FLOW.times(2), Heun(), denoise=False), by_hand, rtol=1e-12, atol=1e-12)


def test_a_change_of_time_and_scale_gives_the_paths_of_vp():
    """At equal sigma / alpha, x / alpha is the same: from a common start, up to the error of the solver."""
    vp, steps = VP(), FLOW.times(40, end=0.01)[1:]
    ratios = FLOW.ratio(steps)
    assert ratios[0] < vp.ratio(vp.t_max)
    y = torch.randn(5, 2, dtype=torch.float64) * ratios[0]
    for predictor in (DDIM(), DPMSolverPP(), DPMSolverPP(3)):  # in ln(sigma / alpha), whatever the schedule
        ends = []
        for schedule in (FLOW, vp):
            times = schedule.time_of(ratios)
            x = sample(mixture(schedule), y * schedule(times[0])[0], times, predictor, denoise=False)
            ends.append(x / schedule(times[-1])[0])
        assert_close(*ends, rtol=1e-9, atol=1e-9)
    flow = ProbabilityFlow(1e-10, 1e-10)
    ends = []
    for schedule in (FLOW, vp):
        t, s = (schedule.time_of(ratio) for ratio in (ratios[0], ratios[-1]))
        ends.append(flow(mixture(schedule), y * schedule(t)[0], t, s) / schedule(s)[0])
    assert_close(*ends, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("predictor", "order"), [(DDIM(), 1), (Heun(), 2), (DPMSolverPP(), 2)])
def test_solvers_converge_in_their_order_from_pure_noise(predictor, order):
    model, x, errors = GaussianModel(*NORMAL, FLOW), torch.tensor([[1.7]], dtype=torch.float64), []
    for steps in (160, 320, 640):
        times = FLOW.times(steps + 1, end=0.05)
        drawn = sample(model, x, times, predictor, denoise=False)
        errors.append((drawn - exact(x, times[0], times[-1])).abs().item())
    assert (-torch.tensor(errors).log2().diff()).tolist() == pytest.approx([order, order], abs=0.2)


def test_the_adaptive_flow_starts_at_pure_noise_and_comes_back():
    model, x = GaussianModel(*NORMAL, FLOW), torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    flow = ProbabilityFlow(1e-10, 1e-10)
    data = decode(model, x, flow)
    assert_close(data, exact(x, FLOW.t_max, FLOW.t_min), rtol=1e-8, atol=1e-8)
    assert_close(encode(model, data, flow), x, rtol=1e-7, atol=1e-7)


def test_the_likelihood_is_exact():
    model, x = GaussianModel(*NORMAL, FLOW), torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    std = math.sqrt(0.25 * (1 - 1e-5) ** 2 + 1e-10)
    exact_bits = ((x - 0.3 * (1 - 1e-5)) ** 2 / (2 * std**2) + math.log(std * math.sqrt(2 * math.pi))) / math.log(2)
    assert_close(bits_per_dim(model, x, flow=ProbabilityFlow(1e-9, 1e-9)), exact_bits[:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_sampling_draws_a_gaussian_from_pure_noise(variance):
    """Each step is affine in x and z: the coefficients give mean and variance without sampling error."""
    model, times = GaussianModel(*NORMAL, FLOW), FLOW.times(400, end=1 / 400)
    rows = len(times) + 1
    x, k = torch.zeros(rows, 1, dtype=torch.float64), 0
    x[0] = 1

    def one(x):
        nonlocal k
        k += 1
        return torch.nn.functional.one_hot(torch.tensor(k), rows).to(x)[:, None]

    x = sample(model, x, times, Ancestral(variance), randn_like=one)
    assert x[-1].item() == pytest.approx(0.3, abs=1e-6)
    assert (x[:-1] - x[-1]).square().sum().sqrt().item() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("predictor", [EulerMaruyama(), ReverseDiffusion()])
def test_steps_of_the_sde_are_refused_at_pure_noise(predictor):
    with pytest.raises(ValueError, match=r"no signal at its highest noise level.*ancestral, ddim, heun, dpm_solver"):
        Sampler(predictor, steps=5).evaluations(FLOW)


@pytest.mark.parametrize("spacing", ["log_snr", "karras"])
def test_spacings_by_the_noise_ratio_are_refused(spacing):
    with pytest.raises(ValueError, match=r"take uniform or quadratic"):
        FLOW.times(5, spacing)


@pytest.mark.parametrize("prediction", ["eps", "score", "sigma_score", "edm"])
def test_predictions_that_divide_by_alpha_are_refused(prediction):
    with pytest.raises(ValueError, match=r"take velocity, v or x_0"):
        ScoreModel(MLP(2), FLOW, prediction)


def test_a_conditioning_on_an_infinite_ratio_is_refused():
    with pytest.raises(ValueError, match="conditioning edm"):
        ScoreModel(MLP(2), FLOW, "velocity", "edm")


@pytest.mark.parametrize("objective", [Denoising("edm"), Denoising("velocity", times="importance")])
def test_losses_that_are_infinite_at_pure_noise_are_refused(objective):
    Denoising().check(FLOW, 2)  # counts the error of eps, of which there is none
    with pytest.raises(ValueError, match=r"no signal at its highest noise level"):
        objective.check(FLOW, 2)


def test_times_between_zero_and_one_are_asked_for():
    with pytest.raises(ValueError, match="0 < t_min < 1"):
        RectifiedFlow(t_min=0)
