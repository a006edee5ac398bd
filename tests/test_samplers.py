"""Samplers on exact scores: exact recursions, moments, mode weights and identities between them."""

import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import GaussianMixtureModel
from score_lightning.samplers import DDIM, Ancestral, AnnealedLangevin, Langevin, Sampler, sample
from score_lightning.schedules import cosine, geometric, linear_beta

DDPM, NCSN = linear_beta(1e-4, 0.02, 1000), geometric(0.01, 1, 10)
SCHEDULES = {"ddpm": DDPM, "cosine": cosine(1000), "ncsn": geometric(0.01, 20, 200)}


def gaussian(mean, std, schedule):
    """The exact model of data N(mean, std^2) in one dimension."""
    return GaussianMixtureModel(torch.tensor([[mean]], dtype=torch.float64), std, torch.ones(1), schedule)


def affine(step):
    """(a, b, c) of a step x -> a x + b + c z, read off by probing it."""
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    b = step(zero, torch.zeros_like)
    return (step(one, torch.zeros_like) - b).item(), b.item(), (step(zero, torch.ones_like) - b).item()


def ho_et_al_recursion(mean, variance, mu, std, variances):
    """Mean and variance of x_0 under Algorithm 2 of Ho et al. 2020 with the exact eps of N(mu, std^2) data."""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    for t in range(999, -1, -1):
        total = alpha_bar[t] * std**2 + 1 - alpha_bar[t]
        slope = (1 - alpha_bar[t]).sqrt() / total  # eps_hat = slope (x - sqrt(alpha_bar) mu)
        k = beta[t] / (1 - alpha_bar[t]).sqrt() * slope
        mean = ((1 - k) * mean + k * alpha_bar[t].sqrt() * mu) / (1 - beta[t]).sqrt()
        variance = (1 - k) ** 2 * variance / (1 - beta[t])
        if t > 0:
            small = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t]) * beta[t]
            variance = variance + (beta[t] if variances == "large" else small)
    return mean, variance


def moments_by_probing(model, times, predictor):
    """Mean and variance after the sampler's own steps, each affine in x and z, from N(0, 1)."""
    mean, variance = 0.0, 1.0
    for t, s in pairwise(times):
        step = lambda x, noise, t=t, s=s: predictor.step(model(x, t), model.schedule, t, s, noise)  # noqa: E731
        a, b, c = affine(step)
        mean, variance = a * mean + b, a**2 * variance + c**2
    a, b, _ = affine(lambda x, noise: model(x, times[-1]).x_0)
    return a * mean + b, a**2 * variance


@pytest.mark.parametrize("variance", ["large", "small"])
def test_ancestral_moments_equal_those_of_algorithm_2(variance):
    model = gaussian(0.7, 0.3, DDPM)
    ours = moments_by_probing(model, DDPM.times(), Ancestral(variance))
    theirs = ho_et_al_recursion(torch.tensor(0.0).double(), torch.tensor(1.0).double(), 0.7, 0.3, variance)
    assert_close(torch.tensor(ours, dtype=torch.float64), torch.stack(theirs), rtol=1e-9, atol=1e-9)


def test_ancestral_of_standard_normal_data_ends_with_variance_0_9999():
    mean, variance = moments_by_probing(gaussian(0.0, 1.0, DDPM), DDPM.times(), Ancestral("large"))
    assert mean == pytest.approx(0, abs=1e-12)
    assert variance == pytest.approx(0.9999, abs=1e-9)


def test_the_loop_runs_the_steps_whose_moments_were_proven():
    """One fixed noise: the loop's result equals the affine steps applied by hand."""
    model, times, z = gaussian(0.7, 0.3, DDPM), DDPM.times(50), 0.37
    x = torch.tensor([[0.9]], dtype=torch.float64)
    noise = lambda x: torch.full_like(x, z)  # noqa: E731
    by_hand = x
    for t, s in pairwise(times):
        by_hand = Ancestral().step(model(by_hand, t), DDPM, t, s, noise)
    assert_close(sample(model, x, times, Ancestral(), denoise=False, randn_like=noise), by_hand)
    denoised = sample(model, x, times, Ancestral(), randn_like=noise)
    assert_close(denoised, model(by_hand, times[-1]).x_0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_ddim_of_eta_1_is_ancestral_with_the_small_variance(schedule):
    model, x = gaussian(0.2, 0.5, schedule), torch.randn(5, 1, dtype=torch.float64)
    times = schedule.times(20)
    for t, s in pairwise(times):
        both = [p.step(model(x, t), schedule, t, s, torch.ones_like) for p in (DDIM(1.0), Ancestral("small"))]
        assert_close(*both, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_ddim_carries_the_marginals_of_a_point_mass_exactly(schedule, eta):
    """For data at one point x_0 is exact and x_s ~ N(alpha_s x_0, sigma_s^2) at every step (DDIM, Lemma 1)."""
    model, (t, s) = gaussian(0.6, 0.0, schedule), schedule.times(30)[3:5]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule(t), schedule(s)
    a, b, c = affine(lambda x, noise: DDIM(eta).step(model(x, t), schedule, t, s, noise))
    assert a * alpha_t * 0.6 + b == pytest.approx(alpha_s.item() * 0.6, rel=1e-9)
    assert a**2 * sigma_t.item() ** 2 + c**2 == pytest.approx(sigma_s.item() ** 2, rel=1e-9)


def test_ddim_with_all_steps_recovers_a_gaussian():
    mean, variance = moments_by_probing(gaussian(0.5, 0.3, DDPM), DDPM.times(), DDIM())
    assert mean == pytest.approx(0.5, abs=5e-3)
    assert math.sqrt(variance) == pytest.approx(0.3, abs=5e-3)


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(Ancestral("large"), steps=200),
        Sampler(Ancestral("small"), steps=200),
        Sampler(DDIM(0.0), steps=200),
        Sampler(DDIM(0.5), steps=200),
    ],
    ids=["large", "small", "ddim", "ddim_half"],
)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_predictors_recover_the_weights_and_moments_of_a_mixture(schedule, sampler):
    torch.manual_seed(0)
    means = torch.tensor([[-0.7, 0.2], [0.6, 0.5]], dtype=torch.float64)
    model = GaussianMixtureModel(means, 0.1, torch.tensor([0.25, 0.75], dtype=torch.float64), schedule)
    x = sampler(model, schedule.prior((20_000, 2), dtype=torch.float64))
    first = x[:, 0] < 0
    assert first.double().mean().item() == pytest.approx(0.25, abs=0.02)
    for mode, mean in zip((first, ~first), means, strict=True):
        assert_close(x[mode].mean(0), mean, atol=0.01, rtol=0)
        assert_close(x[mode].std(0), torch.full((2,), 0.1).double(), atol=0.025, rtol=0)


def test_langevin_variance_equals_its_recursion():
    """v <- (1 - delta / v_t)^2 v + 2 delta for a Gaussian of variance v_t; delta_t = step sigma_t^2 / sigma_min^2."""
    model, t = gaussian(0.0, 0.5, NCSN), torch.tensor(6)
    sigma = NCSN(t)[1].item()
    for corrector, delta in [(Langevin(0.01, 3), 0.01), (AnnealedLangevin(2e-5, 3), 2e-5 * sigma**2 / 0.01**2)]:
        a = affine(lambda x, noise, corrector=corrector: corrector.step(model, x, t, noise))[0]
        assert a == pytest.approx((1 - delta / (0.25 + sigma**2)) ** 3, rel=1e-9)
        draws = []
        x, noise = torch.zeros(1, 1).double(), lambda x, draws=draws: draws.append(1) or torch.ones_like(x)
        moved = corrector.step(model, x, t, noise)
        k = 1 - delta / (0.25 + sigma**2)
        assert moved.item() == pytest.approx(math.sqrt(2 * delta) * (1 + k + k**2), rel=1e-9)
        assert len(draws) == 3


def test_annealed_langevin_finds_the_weights_that_plain_langevin_gets_wrong():
    """Song & Ermon 2019, Figure 3: a mixture of weights 0.8 and 0.2 at (5, 5) and (-5, -5)."""
    torch.manual_seed(0)
    means = torch.tensor([[5.0, 5.0], [-5.0, -5.0]], dtype=torch.float64)
    model = GaussianMixtureModel(means, 1.0, torch.tensor([0.8, 0.2], dtype=torch.float64), geometric(1, 20, 20))
    start = 16 * torch.rand(4000, 2, dtype=torch.float64) - 8
    share = lambda x: (x.sum(1) > 0).double().mean().item()  # noqa: E731
    annealed = sample(model, start, corrector=AnnealedLangevin(0.05, 100), denoise=False)
    assert share(annealed) == pytest.approx(0.795, abs=0.02)
    plain = sample(model, start, model.schedule.times()[-1:], corrector=Langevin(0.05, 2000), denoise=False)
    assert share(plain) == pytest.approx(0.5, abs=0.04)


def test_final_denoising_removes_the_last_noise():
    model, x = gaussian(0.4, 0.0, NCSN), torch.rand(50, 1, dtype=torch.float64)
    noisy, clean = (Sampler(corrector=AnnealedLangevin(2e-5, 100), denoise=d)(model, x) for d in (False, True))
    assert 0.005 < noisy.std() < 0.02
    assert_close(clean, torch.full_like(clean, 0.4))


def test_clipping_bounds_the_result_of_predictors_and_denoising():
    model, x = gaussian(3.0, 0.0, DDPM), torch.randn(20, 1)
    sampler = Sampler(DDIM(), steps=20, clip=(-1.0, 1.0))
    assert_close(sampler(model, x), torch.ones_like(x), atol=1e-3, rtol=0)
    assert Sampler(DDIM(), steps=20)(model, x).mean() > 2.5


def test_the_trajectory_holds_the_start_every_time_and_the_result():
    model, x, seen = gaussian(0.0, 1.0, DDPM), torch.randn(3, 1), []
    result = Sampler(Ancestral(), steps=7)(model, x, observe=seen.append)
    assert len(seen) == 8
    assert_close(seen[0], x)
    assert_close(seen[-1], result)


@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(Ancestral(), steps=7),
        Sampler(DDIM(), steps=7, denoise=False),
        Sampler(corrector=Langevin(0.1, 3), steps=2),
        Sampler(DDIM(), AnnealedLangevin(0.1, 2), steps=4),
    ],
)
def test_evaluations_are_counted_as_they_happen(sampler):
    model, calls = gaussian(0.0, 1.0, DDPM), []

    def counting(x, t):
        calls.append(1)
        return model(x, t)

    counting.schedule = DDPM
    sampler(counting, torch.randn(2, 1))
    assert len(calls) == sampler.evaluations(DDPM)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Ancestral("medium"), "large or small"),
        (lambda: DDIM(1.5), "between 0 and 1"),
        (lambda: Langevin(0.0, 3), "step_size > 0"),
        (lambda: sample(gaussian(0.0, 1.0, DDPM), torch.zeros(1, 1)), "a predictor, a corrector or both"),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
