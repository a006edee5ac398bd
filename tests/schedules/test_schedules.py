"""Schedules against the published constants and their own definitions."""

import math

import pytest
import torch
from torch.testing import assert_close

from score_lightning.schedules import EDM, VE, VP, Discrete, SubVP, cosine, geometric, linear_beta

DDPM = linear_beta(1e-4, 0.02, 1000)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_ddpm_has_the_published_alpha_bars():
    alpha, _ = DDPM(torch.tensor([0, 499, 999]))
    assert_close(alpha**2, f64(0.9999, 0.0785872429, 4.035829765e-5), rtol=1e-9, atol=0)


def test_ddpm_betas_are_linear():
    alpha, _ = DDPM(torch.arange(1000))
    beta = 1 - (alpha[1:] / alpha[:-1]) ** 2
    assert_close(beta, torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[1:], rtol=0, atol=1e-13)


@pytest.mark.parametrize("schedule", [DDPM, cosine(1000)], ids=["linear", "cosine"])
def test_ddpm_schedules_preserve_variance(schedule):
    alpha, sigma = schedule(schedule.times())
    assert_close(alpha**2 + sigma**2, torch.ones(1000, dtype=torch.float64), rtol=1e-14, atol=0)


def test_cosine_equals_its_closed_form_where_beta_is_not_clipped():
    alpha, _ = cosine(1000)(torch.arange(1000))
    f = lambda t: math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    assert_close(alpha[:990] ** 2, f64(*[f(t) / f(0) for t in range(1, 991)]), rtol=1e-10, atol=0)
    assert 1 - (alpha[999] / alpha[998]) ** 2 == pytest.approx(0.999, rel=1e-9)


def test_ncsn_ladders_have_the_published_ratios():
    for ladder, ratio in [(geometric(0.01, 1, 10), 1.6681005372), (geometric(0.01, 50, 232), 1.0375591320)]:
        alpha, sigma = ladder(ladder.times())
        assert_close(
            sigma[:-1] / sigma[1:], torch.full((len(sigma) - 1,), ratio, dtype=torch.float64), rtol=1e-9, atol=0
        )
        assert_close(alpha, torch.ones_like(alpha))
    assert_close(geometric(0.01, 1, 10)(torch.tensor([0, 9]))[1], f64(0.01, 1))


def test_times_run_from_the_most_noise_to_the_least():
    assert DDPM.times().tolist() == list(range(999, -1, -1))
    assert DDPM.times(5).tolist() == [999, 749, 500, 250, 0]
    assert DDPM.times(1).tolist() == [999]
    assert DDPM.times(4, "leading").tolist() == [750, 500, 250, 0]
    assert DDPM.times(4, "trailing").tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize("steps", [2, 7, 50, 500, 1000])
def test_quadratic_times_are_distinct_and_denser_at_little_noise(steps):
    times = DDPM.times(steps, "quadratic")
    assert (times[0], times[-1], len(times)) == (999, 0, steps)
    assert (times.diff() < 0).all()
    if 2 < steps < 1000:
        assert times[-2] - times[-1] < times[0] - times[1]


def test_uniform_numbers_give_every_level_its_share():
    u = (torch.arange(1000) + 0.5) / 1000
    assert torch.bincount(geometric(0.01, 1, 10).at(u)).tolist() == [100] * 10
    assert geometric(0.01, 1, 10).at(torch.tensor([1 - 1e-9])) == 9  # rounds to 1 in float32


def test_times_keep_their_shape_and_the_tables_their_precision():
    alpha, sigma = DDPM(torch.tensor(3))
    assert alpha.shape == sigma.shape == ()
    assert alpha.dtype == sigma.dtype == torch.float64
    assert DDPM(torch.zeros(2, 3, dtype=torch.long))[0].shape == (2, 3)


def test_priors_have_the_distribution_of_the_most_noise():
    torch.manual_seed(0)
    x = geometric(0.01, 50, 10).prior((100_000,))
    assert x.std() == pytest.approx(50, rel=0.01)
    x = geometric(0.01, 1, 10, start="uniform").prior((100_000,), dtype=torch.float64)
    counts = torch.histc(x, 10, 0, 1)
    assert counts.sum() == 100_000
    assert ((counts - 10_000).abs() < 4 * math.sqrt(10_000)).all()


@pytest.mark.parametrize("t", [-1, 10])
def test_a_time_that_is_no_level_is_refused(t):
    with pytest.raises(IndexError, match=rf"integer times 0 \.\. 9; got {t} to {t}"):
        geometric(0.01, 1, 10)(torch.tensor(t))
    with pytest.raises(IndexError, match=f"got {min(t, 3)} to {max(t, 3)}"):
        geometric(0.01, 1, 10)(torch.tensor([[t, 3]]))


def test_betas_that_leave_no_signal_are_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"scale by 1000 / T: for 4000 take 2\.5e-05 and 0\.005"):
        linear_beta(1e-4, 0.02, 4000)
    assert linear_beta(2.5e-5, 0.005, 4000).levels == 4000


@pytest.mark.parametrize("schedule", [VE(), VP(), SubVP(), EDM()], ids=["ve", "vp", "sub_vp", "edm"])
def test_a_formula_knows_times_beyond_the_most_noise(schedule):
    ratio = 1.3 * schedule.ratio(schedule.t_max)
    assert schedule.inverse(ratio) > schedule.t_max
    assert_close(schedule.ratio(schedule.inverse(ratio)), ratio)
    assert schedule.time_of(ratio) == schedule.t_max


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: geometric(1, 0.01, 10), "sigma_min < sigma_max"),
        (lambda: geometric(0, 1, 10), "0 < sigma_min"),
        (lambda: geometric(0.1, 1, 1), "equal for one level"),
        (lambda: linear_beta(1e-4, 1.0, 10), "beta_max < 1"),
        (lambda: cosine(0), "at least one level"),
        (lambda: DDPM.times(1001), "whole number between 1 and the schedule's 1000 levels"),
        (lambda: DDPM.times(1.5), "whole number"),
        (lambda: DDPM.times(5, "cubic"), "uniform, quadratic, log_snr, karras, leading, trailing"),
        (lambda: VE(1, 0.5), "sigma_min < sigma_max"),
        (lambda: VP(2, 1), "VP needs 0 < beta_min <= beta_max"),
        (lambda: SubVP(0, 1), "SubVP needs"),
        (lambda: EDM(1, 0.5), "EDM needs"),
        (lambda: VP(t_min=1.0), "0 < t_min < 1"),
        (lambda: VP().times(5, "leading"), "continuous times have the spacings"),
        (lambda: VP().times(0), "at least 1"),
        (lambda: geometric(1, 1, 1).continuous(), "no continuous limit"),
        (lambda: DDPM.drift(torch.tensor(3)), "take VE, VP, SubVP or EDM"),
        (lambda: Discrete(f64(1, 1), f64(2, 1)), "grow with the level"),
        (lambda: Discrete(f64(1, 1), f64(1, math.nan)), "finite"),
        (lambda: geometric(0.1, 1, 2, start="zero"), "gaussian or uniform"),
    ],
)
def test_bad_schedules_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_float_times_are_refused_by_discrete_schedules():
    with pytest.raises(TypeError, match=r"integer times 0 \.\. 999"):
        DDPM(torch.tensor(0.5))


TIMES = torch.linspace(0.001, 1, 50, dtype=torch.float64)


def test_ve_is_song_eq_31_and_its_sde_eq_30():
    schedule, ratio = VE(0.01, 50), 50 / 0.01
    alpha, sigma = schedule(TIMES)
    assert_close(alpha, torch.ones_like(TIMES))
    assert_close(sigma, 0.01 * ratio**TIMES, rtol=1e-12, atol=0)
    assert_close(schedule.drift(TIMES), torch.zeros_like(TIMES))
    assert_close(schedule.diffusion2(TIMES), (0.01 * ratio**TIMES) ** 2 * 2 * math.log(ratio), rtol=1e-9, atol=0)


def integral(t):
    """Of beta from 0 to t, for the published 0.1 and 20."""
    return 0.1 * t + (20 - 0.1) * t**2 / 2


def test_vp_is_song_eq_33_and_its_sde_eq_32():
    schedule, beta = VP(0.1, 20), 0.1 + TIMES * 19.9
    alpha, sigma = schedule(TIMES)
    assert_close(alpha, (-integral(TIMES) / 2).exp(), rtol=1e-12, atol=0)
    assert_close(alpha**2 + sigma**2, torch.ones_like(TIMES), rtol=1e-12, atol=0)
    assert_close(schedule.drift(TIMES), -beta / 2, rtol=1e-9, atol=0)
    assert_close(schedule.diffusion2(TIMES), beta, rtol=1e-9, atol=0)
    one = [a.item() for a in schedule(torch.tensor(1.0))]
    assert one == pytest.approx([0.0065715865, 0.9999784069], rel=1e-7)


def test_subvp_diffusion_equals_song_eq_29():
    schedule, beta = SubVP(0.1, 20), 0.1 + TIMES * 19.9
    alpha, sigma = schedule(TIMES)
    assert_close(sigma, 1 - (-integral(TIMES)).exp(), rtol=1e-9, atol=0)
    assert_close(alpha, VP(0.1, 20)(TIMES)[0])
    assert_close(schedule.drift(TIMES), -beta / 2, rtol=1e-9, atol=0)
    exact = beta * -torch.expm1(-2 * integral(TIMES))
    assert_close(schedule.diffusion2(TIMES), exact, rtol=1e-9, atol=1e-12)


def test_edm_has_the_published_levels_and_sde():
    schedule = EDM()
    times = schedule.times(18)
    assert times[:3].tolist() == pytest.approx([80, 57.5859847, 40.7855738], rel=1e-8)
    assert times[-2:].tolist() == pytest.approx([0.0075280200, 0.002], rel=1e-8)
    assert_close(schedule(times), (torch.ones_like(times), times))
    assert_close(schedule.drift(times), torch.zeros_like(times))
    assert_close(schedule.diffusion2(times), 2 * times, rtol=1e-12, atol=0)


CONTINUOUS = {"ve": VE(), "vp": VP(), "sub_vp": SubVP(), "edm": EDM(), "limit": DDPM.continuous()}


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log_snr", "karras"])
def test_continuous_times_run_from_the_most_noise_to_the_least(schedule, spacing):
    times = schedule.times(20, spacing)
    assert_close(
        torch.stack([times[0], times[-1]]), torch.stack([schedule.t_max, schedule.t_min]), rtol=1e-9, atol=1e-9
    )
    assert (times.diff() < 0).all()
    alpha, sigma = schedule(times)
    if spacing == "log_snr":
        steps = (sigma / alpha).log().diff()
        assert_close(steps, steps.mean().expand(19), rtol=1e-6, atol=0)
    assert torch.equal(schedule.times(), schedule.times(1000))
    u = schedule.at(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    low, high = schedule.t_min.item(), schedule.t_max.item()
    assert u.tolist() == pytest.approx([low, (low + high) / 2, high])


@pytest.mark.parametrize("schedule", CONTINUOUS.values(), ids=CONTINUOUS)
def test_the_time_of_a_ratio_is_the_inverse_of_the_kernel(schedule):
    t = schedule.at(torch.linspace(0, 1, 500, dtype=torch.float64))
    alpha, sigma = schedule(t)
    assert_close(schedule.time_of(sigma / alpha), t, rtol=1e-9, atol=1e-12)
    beyond = torch.tensor([1e-12, 1e12], dtype=torch.float64)
    assert_close(schedule.time_of(beyond), torch.stack([schedule.t_min, schedule.t_max]))


@pytest.mark.parametrize("steps", [2, 20, 500, 1000])
@pytest.mark.parametrize("spacing", ["log_snr", "karras"])
@pytest.mark.parametrize("schedule", [DDPM, cosine(1000), geometric(0.01, 50, 1000)], ids=["ddpm", "cosine", "ncsn"])
def test_discrete_times_in_log_snr_are_distinct_levels_near_those_asked_for(schedule, spacing, steps):
    times = schedule.times(steps, spacing)
    assert (times[0], times[-1], len(times)) == (999, 0, steps)
    assert (times.diff() < 0).all()


def test_the_limit_of_a_discrete_schedule_has_its_levels_and_smooth_values_between():
    for discrete in (DDPM, cosine(1000), geometric(0.01, 50, 232)):
        limit, t = discrete.continuous(), torch.arange(discrete.levels)
        places = t.double() / (discrete.levels - 1)
        for ours, exact in zip(limit(places), discrete(t), strict=True):
            assert_close(ours, exact, rtol=1e-9, atol=0)
        assert limit.limit_of == discrete.levels
        alpha, sigma = limit(torch.linspace(0, 1, 5000, dtype=torch.float64))
        assert ((sigma / alpha).diff() > 0).all()
    ladder, exact = geometric(0.01, 50, 232).continuous(), VE(0.01, 50)
    assert_close(ladder(TIMES)[1], exact(TIMES)[1], rtol=1e-9, atol=0)
    assert_close(ladder.diffusion2(TIMES), exact.diffusion2(TIMES), rtol=1e-9, atol=0)
    inner = TIMES[5:-5]
    assert_close(DDPM.continuous().diffusion2(inner), VP(0.1, 20).diffusion2(inner), rtol=0.03, atol=0)


def test_continuous_priors_have_the_distribution_of_the_most_noise():
    torch.manual_seed(0)
    assert VE().prior((100_000,)).std() == pytest.approx(50, rel=0.01)
    assert EDM().prior((100_000,)).std() == pytest.approx(80, rel=0.01)
    assert geometric(0.01, 1, 10, start="uniform").continuous().prior((1000,)).min() >= 0


@pytest.mark.parametrize("schedule", [DDPM, geometric(0.01, 50, 232), VE(), VP(), SubVP(), EDM(), DDPM.continuous()])
def test_the_ratio_is_sigma_over_alpha_and_an_sde_is_stated_where_there_is_one(schedule):
    t = schedule.times(7)
    alpha, sigma = schedule(t)
    assert_close(schedule.ratio(t), sigma / alpha, rtol=0, atol=0)
    assert schedule.has_sde == t.is_floating_point()
    if schedule.has_sde:
        schedule.require_sde()
        assert_close(schedule.time_of(schedule.ratio(t)), t, rtol=1e-8, atol=1e-12)
    else:
        with pytest.raises(ValueError, match="take VE, VP, SubVP or EDM"):
            schedule.require_sde()
