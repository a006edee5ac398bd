"""Samplers on exact scores: exact recursions, moments, mode weights and identities between them."""

import inspect
import math
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import GaussianMixtureModel
from score_lightning.samplers import (
    DDIM,
    PRESETS,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP,
    EulerMaruyama,
    Heun,
    Langevin,
    ProbabilityFlow,
    ReverseDiffusion,
    Sampler,
    sample,
)
from score_lightning.schedules import EDM, VE, VP, SubVP, cosine, geometric, linear_beta

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


@pytest.mark.slow
def test_annealed_langevin_finds_the_weights_that_plain_langevin_gets_wrong():
    """Song & Ermon 2019, Figure 3: a mixture of weights 0.8 and 0.2 at (5, 5) and (-5, -5)."""
    torch.manual_seed(0)
    means = torch.tensor([[5.0, 5.0], [-5.0, -5.0]], dtype=torch.float64)
    model = GaussianMixtureModel(means, 1.0, torch.tensor([0.8, 0.2], dtype=torch.float64), geometric(1, 20, 20))
    start = 16 * torch.rand(20_000, 2, dtype=torch.float64) - 8
    share = lambda x: (x.sum(1) > 0).double().mean().item()  # noqa: E731
    annealed = sample(model, start, corrector=AnnealedLangevin(0.05, 100), denoise=False)
    assert share(annealed) == pytest.approx(0.795, abs=0.01)
    plain = sample(model, start[:4000], model.schedule.times()[-1:], corrector=Langevin(0.05, 2000), denoise=False)
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
        (lambda: Ancestral("medium"), "one of large, small, learned"),
        (lambda: DDIM(1.5), "between 0 and 1"),
        (lambda: Langevin(0.0, 3), "step_size > 0"),
        (lambda: Langevin(0.1, 3, snr=0.1), "either step_size > 0 or snr > 0"),
        (lambda: Langevin(steps=3), "either step_size > 0 or snr > 0"),
        (lambda: Heun(churn=-1.0), "churn >= 0"),
        (lambda: Sampler(EulerMaruyama()).evaluations(DDPM), "discrete levels have no SDE"),
        (lambda: Sampler(Heun(churn=1.0)).evaluations(DDPM), "discrete levels have no SDE"),
        (lambda: PRESETS["predictor_corrector"]((-1, 1), predictor="euler"), "predictor must be one of"),
        (lambda: PRESETS["predictor_corrector"]((-1, 1), step_size=0.1), "either snr or step_size"),
        (lambda: sample(gaussian(0.0, 1.0, DDPM), torch.zeros(1, 1)), "a predictor, a corrector or both"),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


CONTINUOUS = {"ve": VE(), "vp": VP(), "sub_vp": SubVP(), "edm": EDM(), "limit": DDPM.continuous()}
EVERY = {**SCHEDULES, **CONTINUOUS}


def closed_form(name, schedule, mu, std, steps):
    """Mean and variance of x after a sampler's steps from N(0, sigma_max^2), for N(mu, std^2) data: by hand, in floats.

    With V_t = alpha^2 std^2 + sigma^2 the score is -(x - alpha mu) / V_t, and every step affine.
    """
    mean, variance = 0.0, schedule(schedule.times(1)[0])[1].item() ** 2
    spread = lambda a, s: a * a * std * std + s * s  # noqa: E731
    for t, s in pairwise(schedule.times(steps)):
        (a_t, s_t), (a_s, s_s) = ([v.item() for v in schedule(time)] for time in (t, s))
        v_t = spread(a_t, s_t)
        a_ts = a_t / a_s
        v_ts = s_t**2 - a_ts**2 * s_s**2
        if name in ("large", "small"):  # x_s = a x + b x_0_hat + ..., x_0_hat = mu + alpha std^2 (x - alpha mu) / V_t
            a, b, gain = a_ts * s_s**2 / s_t**2, a_s * v_ts / s_t**2, a_t * std * std / v_t
            slope, shift = a + b * gain, b * mu * (1 - gain * a_t)
            add = v_ts if name == "large" else s_s**2 * v_ts / s_t**2
        elif name == "reverse_diffusion":
            k, add = v_ts / v_t, v_ts
            slope, shift = 2 - a_ts - k, k * a_t * mu
        elif name == "euler_maruyama":
            f, g2, h = schedule.drift(t).item(), schedule.diffusion2(t).item(), (t - s).item()
            slope, shift, add = 1 - f * h - g2 * h / v_t, g2 * h * a_t * mu / v_t, g2 * h
        else:  # of the ODE dy / dn = eps, y = x / alpha, n = sigma / alpha; eps = slope_eps (y - mu)
            n, m, rate = s_t / a_t, s_s / a_s, lambda n: n / (std * std + n * n)
            euler = 1 + (m - n) * rate(n)
            factor = euler if name == "ddim" else 1 + (m - n) * (rate(n) + rate(m) * euler) / 2
            slope, shift, add = a_s * factor / a_t, a_s * mu * (1 - factor), 0.0
        mean, variance = slope * mean + shift, slope**2 * variance + add
    return mean, variance


LINEAR = {
    "large": Ancestral("large"), "small": Ancestral("small"), "ddim": DDIM(), "heun": Heun(),
    "reverse_diffusion": ReverseDiffusion(), "euler_maruyama": EulerMaruyama(),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("schedule", EVERY.values(), ids=EVERY)
def test_moments_of_linear_samplers_equal_their_recursions(schedule, name):
    if name == "euler_maruyama" and schedule in SCHEDULES.values():
        pytest.skip("refused: discrete levels have no SDE")
    model, (mean, variance) = gaussian(0.4, 0.3, schedule), (0.0, schedule(schedule.times(1)[0])[1].item() ** 2)
    step = LINEAR[name].start(schedule.times(25))
    for t, s in pairwise(schedule.times(25)):
        a, b, c = affine(lambda x, noise, t=t, s=s: step(model, x, t, s, noise))
        mean, variance = a * mean + b, a**2 * variance + c**2
    exact = closed_form(name, schedule, 0.4, 0.3, 25)
    assert (mean, variance) == (pytest.approx(exact[0], rel=1e-9, abs=1e-12), pytest.approx(exact[1], rel=1e-9))


def test_edm_heun_of_18_steps_gives_the_published_number():
    """35 evaluations from x = 80 on N(0, 0.25), the last step to sigma = 0 being the read-out of x_0."""
    sampler = Sampler(Heun(), steps=18)
    model = gaussian(0.0, 0.5, EDM())
    assert sampler.evaluations(EDM()) == 35
    assert sampler(model, torch.full((1, 1), 80.0).double()).item() == pytest.approx(0.5276246, abs=1e-7)


def errors(schedule, predictor, counts, spacing):
    """Distance to the exact solution of the ODE on N(0.3, 0.5^2), y - mu proportional to sqrt(std^2 + n^2)."""
    model, x = gaussian(0.3, 0.5, schedule), torch.tensor([[1.7]], dtype=torch.float64)
    (a, s), (b, r) = (schedule(t) for t in schedule.times(2))
    factor = torch.sqrt((0.25 + (r / b) ** 2) / (0.25 + (s / a) ** 2))
    exact = b * (0.3 + (x / a - 0.3) * factor)
    found = []
    for count in counts:
        times = schedule.times(count + 1, spacing)
        found.append((sample(model, x, times, predictor, denoise=False) - exact).abs().item())
    return torch.tensor(found).log2()


@pytest.mark.parametrize(("predictor", "order"), [(DDIM(), 1), (Heun(), 2), (DPMSolverPP(), 2)])
@pytest.mark.parametrize("schedule", [VP(), VE(0.01, 20), EDM(0.01, 20)], ids=["vp", "ve", "edm"])
def test_solvers_converge_in_their_order(schedule, predictor, order):
    slopes = -errors(schedule, predictor, [160, 320, 640], "log_snr").diff()
    assert slopes.tolist() == pytest.approx([order, order], abs=0.2)


def test_dpm_solver_equals_its_algorithm_by_hand():
    """Lu et al. 2022, Algorithm 2, in lambda = ln(alpha / sigma)."""
    model, times = gaussian(0.4, 0.3, VP()), VP().times(6)
    x = x_hand = torch.tensor([[0.7]], dtype=torch.float64)
    kernels = [[v.item() for v in VP()(t)] for t in times]
    lambdas, data = [math.log(a / s) for a, s in kernels], []
    for i in range(1, 6):
        data.append(model(x_hand, times[i - 1]).x_0)
        h = lambdas[i] - lambdas[i - 1]
        d = data[-1]
        if i > 1:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            d = (1 + 1 / (2 * r)) * data[-1] - data[-2] / (2 * r)
        x_hand = kernels[i][1] / kernels[i - 1][1] * x_hand - kernels[i][0] * math.expm1(-h) * d
    assert_close(sample(model, x, times, DPMSolverPP(), denoise=False), x_hand, rtol=1e-12, atol=0)
    first = sample(model, x, times, DPMSolverPP())
    assert_close(sample(model, x, times, DPMSolverPP()), first)  # no memory from one trajectory to the next


def test_reverse_diffusion_of_unit_betas_is_song_et_al_eq_46():
    """x_i = (2 - sqrt(1 - beta)) x + beta score + sqrt(beta) z, for DDPM's levels."""
    model, x, t = gaussian(0.2, 0.5, DDPM), torch.randn(4, 1).double(), torch.tensor(700)
    beta = 1e-4 + (0.02 - 1e-4) * 700 / 999
    exact = (2 - math.sqrt(1 - beta)) * x + beta * model(x, t).score + math.sqrt(beta) * torch.ones_like(x)
    assert_close(ReverseDiffusion()(model, x, t, t - 1, torch.ones_like), exact, rtol=1e-9, atol=1e-12)


def test_churn_adds_just_the_noise_of_algorithm_2():
    """For a point mass x_hat ~ N(x_0, n_hat^2) again, so the end's variance is that of no churn; with it, random."""
    torch.manual_seed(0)
    model, x = gaussian(0.6, 0.0, EDM()), 0.6 + 80 * torch.randn(20_000, 1).double()
    times = EDM().times(18)
    for churn in (0.0, 40.0):
        noisy = sample(model, x, times, Heun(churn), denoise=False)
        assert noisy.std() == pytest.approx(0.002, rel=0.03)
    t = torch.tensor(1.0, dtype=torch.float64)
    gamma = min(40 / 18, math.sqrt(2) - 1)
    draws = []
    Heun(40.0, churn_noise=1.5).start(times)(model, x, t, t / 2, lambda z: draws.append(z) or torch.zeros_like(z))
    assert len(draws) == 1
    seen = []

    def watching(x_t, t):
        seen.append((x_t, t))
        return model(x_t, t)

    watching.schedule = EDM()
    Heun(40.0, churn_noise=1.5).start(times)(watching, x, t, t / 2, torch.ones_like)
    assert seen[0][1].item() == pytest.approx(1 + gamma)
    assert_close(seen[0][0], x + 1.5 * math.sqrt((1 + gamma) ** 2 - 1), rtol=1e-9, atol=1e-9)
    silent = []
    Heun(40.0, churn_min=2.0).start(times)(model, x, t, t / 2, lambda z: silent.append(z) or z)
    assert not silent


def stochastic_edm(x, draw, steps=18, churn=40.0, low=0.002, high=80.0, mean=0.6, std=0.3):
    """Karras et al. 2022, Algorithm 2 with S_tmin = 0 and S_tmax infinite, for N(mean, std^2) data."""
    times = [(high ** (1 / 7) + i / (steps - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(steps)]
    for t, s in pairwise([*times, 0.0]):
        t_hat = t * (1 + min(churn / steps, math.sqrt(2) - 1))
        x = x + math.sqrt(t_hat**2 - t**2) * draw(x)
        slope = lambda x, t: t * (x - mean) / (std**2 + t**2)  # noqa: E731
        euler = x + (s - t_hat) * slope(x, t_hat)
        x = x + (s - t_hat) * (slope(x, t_hat) + slope(euler, s)) / 2 if s > 0 else euler
    return x


def test_churn_is_algorithm_2_from_the_first_step_to_the_last():
    """Beyond the most noise at first, and before the final denoising."""
    model, x = gaussian(0.6, 0.3, EDM()), 80 * torch.randn(50, 1).double()
    draws = lambda: iter(torch.randn(18, 50, 1, generator=torch.Generator().manual_seed(1)).double())  # noqa: E731
    ours, theirs = draws(), draws()
    drawn = Sampler(Heun(40.0), steps=18)(model, x, lambda _: next(ours))
    assert_close(drawn, stochastic_edm(x, lambda _: next(theirs)), rtol=1e-9, atol=1e-9)
    assert next(ours, None) is None


def test_churn_ends_where_a_limit_of_levels_does():
    schedule = DDPM.continuous()
    model, seen = gaussian(0.6, 0.3, schedule), []

    def watching(x_t, t):
        seen.append(t.item())
        return model(x_t, t)

    watching.schedule = schedule
    Sampler(Heun(40.0), steps=5)(watching, schedule.prior((3, 1), dtype=torch.float64))
    assert max(seen) == 1


def test_a_start_below_the_last_level_is_scaled_for_it():
    schedule = geometric(0.01, 50, 100)
    times = schedule.times(5, "leading")
    assert times.tolist() == [80, 60, 40, 20, 0]
    x = schedule.prior((100_000, 1), t=times[0], dtype=torch.float64)
    assert x.std().item() == pytest.approx(schedule(times[0])[1].item(), rel=0.01)
    model = gaussian(0.6, 0.05, schedule)
    settings = Sampler(DDIM(), steps=5, spacing="leading")
    assert settings(model, x).std().item() == pytest.approx(predicted(settings, schedule, 0.05)[1], rel=0.02)
    assert Sampler(DDIM(), steps=1, spacing="leading")(model, schedule.prior((100, 1), t=torch.tensor(0))).std() < 0.2


@pytest.mark.parametrize("schedule", [VP(), SubVP()], ids=["vp", "sub_vp"])
def test_samplers_end_at_an_end_of_their_own(schedule):
    assert Sampler(EulerMaruyama(), steps=1000).times(schedule)[-1] == 1e-3
    assert Sampler(EulerMaruyama(), steps=10, end=0.01).times(schedule)[-1] == 0.01
    assert Sampler(Heun(), steps=10, spacing="log_snr").times(schedule)[-1].item() == pytest.approx(1e-3)
    assert schedule.times(10)[-1] == schedule.t_min == 1e-5
    assert type(schedule)(t_min=0.01).sampling_end == 0.01
    assert Sampler(Heun(), steps=10).times(VE())[-1] == 1e-5
    with pytest.raises(ValueError, match=r"from 1e-05 to below 1, got 1\.0"):
        Sampler(EulerMaruyama(), steps=10, end=1.0).evaluations(schedule)
    with pytest.raises(ValueError, match="discrete levels end at level 0"):
        Sampler(Heun(), steps=10, end=0.1).evaluations(DDPM)


@pytest.mark.parametrize("schedule", [VP(), pytest.param(SubVP(), marks=pytest.mark.slow)], ids=["vp", "sub_vp"])
def test_the_last_step_leaves_no_noise_behind(schedule):
    """A direction of hardly any variance: what is left there is noise of the sampler."""
    narrow = 0.002
    _, std = predicted(Sampler(EulerMaruyama(), steps=1000), schedule, narrow)
    assert std <= 1.01 * narrow


PAIRS = [
    (Ancestral("large"), None), (Ancestral("small"), None), (DDIM(), None), (DDIM(0.5), None), (Heun(), None),
    (Heun(20.0), None), (DPMSolverPP(), None), (ReverseDiffusion(), None), (EulerMaruyama(), None),
    (ReverseDiffusion(), Langevin(snr=0.16)), (EulerMaruyama(), Langevin(snr=0.16)), (DDIM(), Langevin(snr=0.1)),
    pytest.param(None, Langevin(snr=0.3, steps=8), marks=pytest.mark.slow),
    (ProbabilityFlow(1e-4, 1e-4), None), (Ancestral(), Langevin(snr=0.1)),
    (Heun(), Langevin(snr=0.1)), (DPMSolverPP(), Langevin(snr=0.1)),
]  # fmt: skip


class OneAtATime:
    """A randn_like whose draw i is 1 in row i + 2 and 0 elsewhere."""

    draws = 0

    def __call__(self, x):
        z = torch.zeros_like(x)
        z[self.draws + 2 : self.draws + 3] = 1
        self.draws += 1
        return z


def predicted(sampler, schedule, std):
    """(mean / mu, standard deviation) of what a sampler makes of N(mu, std^2) data: exact, as all its steps are affine.

    One run reads off the factor of the start and of each normal number that is drawn.
    """
    model, noise = gaussian(1.0, std, schedule), OneAtATime()
    sampler(model, torch.zeros(1, 1, dtype=torch.float64), noise)
    x = torch.zeros(noise.draws + 2, 1, dtype=torch.float64)
    x[1] = schedule(sampler.times(schedule)[0])[1]
    ends = sampler(model, x, OneAtATime())[:, 0]
    return ends[0].item(), (ends[1:] - ends[0]).norm().item()


@pytest.mark.parametrize(("predictor", "corrector"), PAIRS)
@pytest.mark.parametrize(
    "schedule",
    [pytest.param(schedule, marks=pytest.mark.slow) for schedule in (VE(0.01, 20), SubVP(), EDM(0.01, 20), DDPM)]
    + [VP()],
    ids=["ve", "sub", "edm", "ddpm", "vp"],
)
def test_every_pair_recovers_the_weights_and_moments_of_a_mixture(schedule, predictor, corrector):
    """Moments within 4 standard errors and the error that is predicted for a Gaussian."""
    torch.manual_seed(0)
    # a corrector alone keeps up with the levels only where there are many of little noise
    steps = 2 if isinstance(predictor, ProbabilityFlow) else 200
    sampler = Sampler(predictor, corrector, steps=steps, spacing="log_snr" if predictor is None else "uniform")
    try:
        sampler.evaluations(schedule)
    except ValueError:
        pytest.skip("refused: discrete levels have no SDE")
    means = torch.tensor([[-0.7, 0.2], [0.6, 0.5]], dtype=torch.float64)
    model = GaussianMixtureModel(means, 0.1, torch.tensor([0.25, 0.75], dtype=torch.float64), schedule)
    x = sampler(model, schedule.prior((8_000, 2), dtype=torch.float64))
    first = x[:, 0] < 0
    assert first.double().mean().item() == pytest.approx(0.25, abs=0.02)
    mean_factor, std = predicted(sampler, schedule, 0.1)
    for mode, mean in zip((first, ~first), means, strict=True):
        found, n = x[mode], int(mode.sum())
        assert ((found.mean(0) - mean).abs() <= 4 * std / n**0.5 + abs(mean_factor - 1) * mean.abs()).all()
        assert ((found.std(0) - 0.1).abs() <= 4 * std / (2 * n) ** 0.5 + abs(std - 0.1)).all()


def test_presets_state_the_keywords_that_they_take():
    loop = ["steps", "spacing", "clip", "denoise", "end"]
    keywords = {name: list(inspect.signature(preset).parameters) for name, preset in PRESETS.items()}
    assert keywords["ancestral"] == ["pixels", "variance", *loop]
    assert keywords["heun"] == ["pixels", "churn", "churn_min", "churn_max", "churn_noise", *loop]
    assert keywords["probability_flow"] == ["rtol", "atol", "steps", "spacing", "denoise", "end"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'eta'"):
        PRESETS["ancestral"]((-1, 1), eta=1.0)


def test_presets_have_the_defaults_of_their_papers():
    clipped, free = (-1.0, 1.0), None
    for name, clip, steps, spacing in [
        ("ancestral", clipped, None, "uniform"),
        ("ddim", clipped, None, "uniform"),
        ("dpm_solver", clipped, None, "uniform"),
        ("heun", clipped, None, "log_snr"),
        ("reverse_diffusion", free, None, "uniform"),
        ("euler_maruyama", free, None, "uniform"),
        ("predictor_corrector", free, None, "uniform"),
    ]:
        sampler = PRESETS[name](pixels=(-1.0, 1.0))
        assert (sampler.clip, sampler.steps, sampler.spacing, sampler.denoise) == (clip, steps, spacing, True), name
    flow = PRESETS["probability_flow"]()
    assert (flow.clip, flow.steps, flow.spacing) == (None, 2, "uniform")
    assert PRESETS["ddim"]((-1.0, 1.0), eta=0.5, steps=7, clip=False).predictor.eta == 0.5
