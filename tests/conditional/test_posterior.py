"""Posterior sampling against exact posteriors."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from score_lightning.conditional import (
    DPS,
    MMPS,
    Clipped,
    Downsample,
    Gray,
    Measurement,
    Observation,
    PiGDM,
    Posterior,
)
from score_lightning.conditional.posterior import conjugate_gradients
from score_lightning.likelihood import continuous
from score_lightning.models import GaussianMixtureModel, GaussianModel, ScoreModel
from score_lightning.samplers import DDIM, Ancestral, AnnealedLangevin, Heun, Langevin, sample
from score_lightning.schedules import VE, VP, RectifiedFlow, linear_beta

METHODS = [DPS, PiGDM, MMPS]
NAMES = ("dps", "pigdm", "mmps")
MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
ROOT = torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.5, -0.7], [0.3, 0.0, 0.4]], dtype=torch.float64)
FULL, EYE = ROOT @ ROOT.mT, torch.eye(3, dtype=torch.float64)
A = torch.tensor([[1.0, -0.5, 0.3], [0.0, 0.8, 1.1]], dtype=torch.float64)
Y, NOISE = torch.tensor([[0.7, -0.4]], dtype=torch.float64), 0.3


class Matrix:
    """x -> A x, of points."""

    def __init__(self, a=A):
        self.a = a

    def forward(self, x):
        return x @ self.a.to(x).mT


OBSERVED = Observation(Matrix(), Y, NOISE)


def given_y(mean, covariance, a=A, y=Y[0], noise=NOISE):
    """(mean, covariance) of x_0 ~ N(mean, covariance) given y."""
    gain = covariance @ a.mT @ torch.linalg.inv(a @ covariance @ a.mT + noise**2 * torch.eye(len(a)).to(a))
    return mean + gain @ (y - a @ mean), covariance - gain @ a @ covariance


@pytest.mark.parametrize("noise", [NOISE, 0.0])
@pytest.mark.parametrize(("schedule", "t"), [(VP(), 0.3), (VE(), 0.7), (linear_beta(1e-4, 0.02, 1000), 600)])
@pytest.mark.parametrize(
    ("method", "mean", "covariance"), [(MMPS, MEAN, FULL), (PiGDM, 0 * MEAN, EYE)], ids=["mmps", "pigdm"]
)
def test_methods_are_exact_for_the_gaussians_that_they_are_made_for(method, mean, covariance, schedule, t, noise):
    """E[x_0 | x_t, y], by conditioning on both at once: x_t = alpha x_0 + sigma z is one more observation."""
    t, x = torch.tensor(t), torch.randn(4, 3, dtype=torch.float64)
    alpha, sigma = schedule(t)
    x = alpha * mean + (alpha**2 + sigma**2).sqrt() * x
    guided = method(GaussianModel(mean, covariance, schedule), Observation(Matrix(), Y, noise))
    estimate = guided(x, t)
    gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * EYE)
    rest = covariance - alpha * gain @ covariance
    expected = torch.stack([given_y(mean + gain @ (one - alpha * mean), rest, noise=noise)[0] for one in x])
    assert_close(estimate.x_0, expected, rtol=1e-9, atol=1e-9)
    assert_close(alpha * estimate.x_0 + sigma * estimate.eps, x)
    assert not estimate.score.requires_grad


@pytest.mark.parametrize(("schedule", "within"), [(VP(), 2e-3), (VE(sigma_max=500.0), 2e-3), (RectifiedFlow(), 2e-2)])
def test_mmps_draws_from_the_exact_posterior_of_gaussian_data(schedule, within):
    """The flow of a Gaussian is affine: its matrix is read from where the axes and the origin go.

    With rectified flow the first step knows nothing of y.
    """
    guided = MMPS(GaussianModel(MEAN, FULL, schedule), OBSERVED)
    spread = schedule(schedule.t_max)[1]
    x = torch.cat([torch.zeros(1, 3), torch.eye(3)]).double() * spread
    times = schedule.times(200, "uniform" if schedule.ends_in_noise else "log_snr")
    moved = sample(guided, x, times, Heun())
    matrix = (moved[1:] - moved[:1]).mT
    mean, covariance = given_y(MEAN, FULL)
    assert_close(moved[0], mean, rtol=0, atol=within)
    assert_close(matrix @ matrix.mT, covariance, rtol=0, atol=within)


def test_pigdm_draws_from_the_exact_posterior_of_standard_normal_data():
    """Mean and covariance within four standard errors."""
    schedule, n = VP(), 4000
    guided = PiGDM(GaussianModel(0 * MEAN, EYE, schedule), OBSERVED)
    x = sample(guided, schedule.prior((n, 3), dtype=torch.float64), schedule.times(300, "log_snr"), DDIM(eta=1.0))
    mean, covariance = given_y(0 * MEAN, EYE)
    variances = covariance.diagonal()
    assert ((x.mean(0) - mean).abs() < 4 * (variances / n).sqrt()).all()
    error = ((variances[:, None] * variances + covariance**2) / n).sqrt()
    assert ((x.mT.cov() - covariance).abs() < 4 * error).all()


def test_projection_under_langevin_steps_draws_from_the_exact_conditional_distribution():
    """The stationary distribution of dx = (B x + c) dt + sqrt(2) dw solves B S + S B^T = -2 I; error of order sigma."""
    t, schedule = torch.tensor(0.0), VE(sigma_min=1e-3)
    first = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    guided = Measurement(lambda x: x * first, 0.9 * first).wrap(GaussianModel(MEAN, FULL, schedule))
    c, *columns = guided(torch.cat([torch.zeros(1, 3), torch.eye(3)]).double(), t).score
    b = torch.stack(columns, 1) - c[:, None]
    lyapunov = torch.kron(b, EYE) + torch.kron(EYE, b)
    covariance = torch.linalg.solve(lyapunov, -2 * EYE.flatten()).view(3, 3)
    expected = given_y(MEAN, FULL, first[None], torch.tensor([0.9]).double(), 0.0)
    assert_close(-torch.linalg.solve(b, c), expected[0], rtol=0, atol=1e-4)
    assert_close(covariance, expected[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("level", [1, 400, 999])
def test_an_ancestral_step_of_dps_is_the_published_shift(level):
    """Chung et al. 2023, Alg. 1: x_s - zeta grad |y - A x_0|^2, with zeta = sigma_ts^2 / (2 alpha_ts noise^2)."""
    schedule = linear_beta(1e-4, 0.02, 1000)
    model, t, s = GaussianModel(MEAN, FULL, schedule), torch.tensor(level), torch.tensor(level - 1)
    x, z = torch.randn(2, 4, 3, dtype=torch.float64)
    x.requires_grad_()
    squares = (Y - Matrix().forward(model(x, t).x_0)).square().sum()
    (gradient,) = torch.autograd.grad(squares, x)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[level]
    zeta = beta / (2 * (1 - beta).sqrt() * NOISE**2)
    plain, guided = (Ancestral()(m, x.detach(), t, s, lambda _: z) for m in (model, DPS(model, OBSERVED)))
    assert_close(guided, plain - zeta * gradient, rtol=1e-9, atol=1e-9)


class Net(nn.Module):
    """A network that is far from linear."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, x, c):
        return self.layers(x) + c.view(-1, 1, 1, 1).sin()


def images(method, prediction="eps", schedule=None, n=3, operator=None):
    torch.manual_seed(1)
    model, operator = ScoreModel(Net(), schedule or VP(), prediction), operator or Downsample(2)
    y = operator.forward(torch.rand(n, 3, 4, 4))
    return method(model, Observation(operator, y, 0.2))


@pytest.mark.parametrize("operator", [Downsample(2), Gray()], ids=["downsample", "gray"])
@pytest.mark.parametrize("method", METHODS)
def test_no_step_couples_images(method, operator):
    whole = images(method, operator=operator)
    x, t = torch.randn(3, 3, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    together = whole(x, t).x_0
    for i in range(3):
        y = whole.observation.y[i : i + 1]
        alone = method(whole.model, Observation(operator, y, 0.2))(x[i : i + 1], t[i])
        assert_close(together[i], alone.x_0[0], rtol=1e-4, atol=1e-5)
    broken = x.clone()
    broken[0] = torch.nan
    assert_close(whole(broken, t).x_0[1:], together[1:])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("prediction", "schedule"), [("eps", VP()), ("velocity", RectifiedFlow())], ids=["vp", "rectified_flow"]
)
def test_networks_are_sampled_without_gradients_in_either_mode(method, prediction, schedule):
    guided = Clipped(images(method, prediction, schedule), -1, 1)
    drawn = []
    for mode in (torch.no_grad, torch.inference_mode):
        torch.manual_seed(0)
        with mode():
            x = schedule.prior((3, 3, 4, 4))
            drawn.append(sample(guided, x, schedule.times(4), Ancestral("small"), Langevin(snr=0.1)))
    assert torch.equal(*drawn)
    assert drawn[0].isfinite().all()
    assert drawn[0].dtype == torch.float32
    assert not drawn[0].requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_at_noise_alone_the_estimate_is_the_models_own(method):
    guided, t = images(method, "velocity", RectifiedFlow()), torch.tensor([1.0, 1.0, 0.5])
    x = torch.randn(3, 3, 4, 4)
    own, estimate = guided.model(x, t).x_0, guided(x, t).x_0
    assert torch.equal(estimate[:2], own[:2])
    assert not torch.equal(estimate[2], own[2])


def test_the_wrapper_follows_its_model_into_the_limit():
    guided = DPS(ScoreModel(lambda x, c: x * c.view(-1, 1), linear_beta(1e-4, 0.02, 10)), OBSERVED)
    limit, x = continuous(guided), torch.randn(2, 3)
    assert limit.schedule.limit_of == 10
    assert guided.schedule.levels == 10
    assert_close(limit(x, torch.tensor(4 / 9, dtype=torch.float64)).x_0, guided(x, torch.tensor(4)).x_0)


def test_observations_are_repeated_in_turn():
    guided = images(MMPS)
    y = guided.repeated(5, 4).observation.y
    assert torch.equal(y, guided.observation.y[[0, 1, 2, 0, 1]])
    assert len(guided.observation.y) == 3


def test_conjugate_gradients_solve_each_system_and_stop_where_one_is_not_positive():
    matrix = torch.stack([FULL, EYE, -EYE, FULL])
    b = torch.randn(4, 3, dtype=torch.float64)
    b[3] = 0
    u = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", matrix, v), b, 30)
    assert_close(u[:2], torch.linalg.solve(matrix[:2], b[:2]))
    assert not u[2:].any()


def test_what_does_not_fit_is_refused_with_the_alternative():
    with pytest.raises(ValueError, match="dps divides by the noise of the observation, which is 0: take mmps or pigdm"):
        Posterior(Observation(Matrix(), Y, 0.0), "dps")
    with pytest.raises(ValueError, match="take mmps or pigdm"):
        DPS(GaussianModel(MEAN, FULL, VP()), Observation(Matrix(), Y, 0.0))
    with pytest.raises(ValueError, match="standard deviation of 0 or more, got -1"):
        Observation(Matrix(), Y, -1)
    with pytest.raises(ValueError, match="method must be one of dps, pigdm, mmps, got 'mpms'"):
        Posterior(OBSERVED, "mpms")
    with pytest.raises(ValueError, match="dps takes no iterations"):
        Posterior(OBSERVED, "dps", 3)
    with pytest.raises(ValueError, match="at least 1 iteration, got 0"):
        Posterior(OBSERVED, "mmps", 0).wrap(GaussianModel(MEAN, FULL, VP()))
    with pytest.raises(ValueError, match=r"makes \(1, 1, 4, 4\) of images \(1, 3, 4, 4\), .* has \(1, 3, 4, 4\)"):
        Posterior(Observation(Gray(), torch.zeros(1, 3, 4, 4), 0.1)).check((3, 4, 4))
    with pytest.raises(ValueError, match=r"cannot take images of shape \(3, 4, 4\)"):
        Posterior(OBSERVED).check((3, 4, 4))
    with pytest.raises(ValueError, match=r"images \(3, 3\)"):
        MMPS(GaussianModel(MEAN, FULL, VP()), Observation(Matrix(), Y.expand(2, 2), 0.1))(
            torch.zeros(3, 3), torch.tensor(0.5)
        )


class First:
    """The first of two coordinates."""

    def forward(self, x):
        return x[:, :1]


def given_first(y, noise, method, n=4000, steps=200):
    """(share of the upper mode, mean, standard deviation) of x_2 given x_1, of a mixture with two modes."""
    means, std, schedule = torch.tensor([[-1.0, -0.8], [1.0, 0.8]], dtype=torch.float64), 0.3, VP()
    if method == "exact":
        weights = (-((y - means[:, 0]) ** 2) / (2 * (std**2 + noise**2))).softmax(0)
        mean = (weights * means[:, 1]).sum()
        variance = std**2 + (weights * (means[:, 1] - mean) ** 2).sum()
        return [value.item() for value in (weights[1], mean, variance.sqrt())]
    evidence, corrector = Posterior(Observation(First(), torch.tensor([[y]]).double(), noise), "mmps"), None
    if method in NAMES:
        evidence = replace(evidence, method=method)
    else:
        first = torch.tensor([1.0, 0.0], dtype=torch.float64)
        evidence = Measurement(lambda x: x * first, y * first)
        if method != "projection":
            corrector = AnnealedLangevin(0.2 * schedule(schedule.t_min)[1].item() ** 2, 20)
    model = evidence.wrap(GaussianMixtureModel(means, std, torch.ones(2, dtype=torch.float64), schedule))
    times, x = schedule.times(steps, "log_snr"), schedule.prior((n, 2), dtype=torch.float64)
    x = evidence.perturb(x, *schedule(times[0]), torch.randn_like(x))
    x_2 = sample(model, x, times, Ancestral("small"), corrector)[:, 1]
    return [(x_2 > 0).double().mean().item(), x_2.mean().item(), x_2.std().item()]


def table():
    """Rows of the table in section 9 of docs/theory.md: (noise, method, share, mean, standard deviation)."""
    text = (Path(__file__).parents[2] / "docs/theory.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (0|0\.3) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.M)
    return [(float(noise), method, *map(float, rest)) for noise, method, *rest in rows]


@pytest.mark.slow
@pytest.mark.parametrize("row", table(), ids=lambda row: f"{row[1]}-{row[0]:g}")
def test_the_table_of_biases_is_measured(row):
    torch.manual_seed(0)
    assert given_first(0.1, *row[:2]) == pytest.approx(row[2:], abs=0.005 if row[1] == "exact" else 0.03)
