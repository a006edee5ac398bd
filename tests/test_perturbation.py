"""The kernel's conditionals against Bayes' rule and DDPM's equations."""

import torch
from torch.testing import assert_close

from score_lightning.perturbation import perturb, posterior, transition
from score_lightning.schedules import geometric, linear_beta

DDPM = linear_beta(1e-4, 0.02, 1000)


def test_perturbed_data_broadcast_over_examples_and_keep_their_dtype():
    x_0, eps = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    alpha, sigma = DDPM(torch.tensor([5, 900]))
    x_t = perturb(x_0, alpha, sigma, eps)
    assert x_t.dtype == torch.float32
    assert_close(x_t[1], alpha[1].float() * x_0[1] + sigma[1].float() * eps[1])
    assert_close(perturb(x_0, *DDPM(torch.tensor(900)), eps)[1], x_t[1])


def test_transition_of_neighbors_is_beta():
    t = torch.arange(1, 1000)
    alpha_ts, sigma2_ts = transition(*DDPM(t - 1), *DDPM(t))
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)[1:]
    assert_close(sigma2_ts, beta, rtol=1e-9, atol=0)
    assert_close(alpha_ts**2, 1 - beta, rtol=1e-12, atol=0)


def test_posterior_has_the_published_variances():
    variance = posterior(*DDPM(torch.tensor([0, 998])), *DDPM(torch.tensor([1, 999])))[2]
    assert_close(variance, torch.tensor([5.4531877e-5, 0.0199999835], dtype=torch.float64), rtol=1e-7, atol=0)


def test_posterior_equals_ho_et_al_eq_7():
    t = torch.arange(1, 1000)
    alpha_bar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).mul(-1).log1p().cumsum(0).exp()
    beta, before, now = 1 - alpha_bar[1:] / alpha_bar[:-1], alpha_bar[:-1], alpha_bar[1:]
    a, b, variance = posterior(*DDPM(t - 1), *DDPM(t))
    assert_close(a, (1 - beta).sqrt() * (1 - before) / (1 - now), rtol=1e-9, atol=0)
    assert_close(b, before.sqrt() * beta / (1 - now), rtol=1e-9, atol=0)
    assert_close(variance, (1 - before) / (1 - now) * beta, rtol=1e-9, atol=0)


def test_posterior_joins_marginal_and_transition_on_every_schedule():
    """p(x_s | x_0) p(x_t | x_s) and p(x_t | x_0) p(x_s | x_t, x_0) have the same means and covariances."""
    for schedule in (DDPM, geometric(0.01, 50, 1000)):
        (alpha_s, sigma_s), (alpha_t, sigma_t) = schedule(torch.tensor(300)), schedule(torch.tensor(700))
        alpha_ts, sigma2_ts = transition(alpha_s, sigma_s, alpha_t, sigma_t)
        a, b, variance = posterior(alpha_s, sigma_s, alpha_t, sigma_t)
        assert_close(alpha_ts * alpha_s, alpha_t)
        assert_close(alpha_ts**2 * sigma_s**2 + sigma2_ts, sigma_t**2)
        assert_close(a * alpha_t + b, alpha_s)
        assert_close(a**2 * sigma_t**2 + variance, sigma_s**2)
        assert_close(a * sigma_t**2, alpha_ts * sigma_s**2)
