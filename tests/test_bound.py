"""The variational bound against its own definitions, torch's distributions and an exact likelihood."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from score_lightning.models import GaussianMixtureModel, ScoreModel
from score_lightning.objectives import VariationalBound
from score_lightning.objectives.bound import bound_bits_per_dim
from score_lightning.schedules import VP, cosine, linear_beta

DDPM = linear_beta(1e-4, 0.02, 1000)


@pytest.mark.parametrize("schedule", [DDPM, cosine(1000)], ids=["linear", "cosine"])
def test_weights_with_beta_tilde_are_differences_of_the_signal_to_noise_ratio(schedule):
    """On the eps loss: 1/2 (SNR_{t-1} - SNR_t) / SNR_t for the paper's t >= 2 (Kingma et al. 2021, Eq. 13)."""
    t = torch.arange(1, 1000)
    b, v_q, v_p = VariationalBound("small").coefficients(schedule, t)
    assert torch.equal(v_q, v_p)
    (alpha, sigma), (alpha_s, sigma_s) = schedule(t), schedule(t - 1)
    snr, snr_s = alpha**2 / sigma**2, alpha_s**2 / sigma_s**2
    weight = b**2 / (2 * v_p) * sigma**2 / alpha**2
    assert_close(weight, (snr_s - snr) / snr / 2, rtol=1e-12, atol=1e-12)


def test_posterior_variances_are_the_published_ones():
    _, v_q, v_p = VariationalBound("large").coefficients(DDPM, torch.tensor([1, 999]))
    assert v_q.tolist() == pytest.approx([5.4531877e-5, 0.0199999835], rel=1e-7)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert v_p.tolist() == pytest.approx([betas[1].item(), betas[999].item()], rel=1e-9)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_terms_are_the_divergences_of_gaussians(variance):
    model = ScoreModel(lambda x, c: torch.sin(x), DDPM)
    x_0, eps = torch.rand(3, 5, dtype=torch.float64) * 2 - 1, torch.randn(3, 5, dtype=torch.float64)
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = (1 - beta).cumprod(0)
    for t in (1, 400, 999):
        x_t = bar[t].sqrt() * x_0 + (1 - bar[t]).sqrt() * eps
        predicted = (x_t - (1 - bar[t]).sqrt() * torch.sin(x_t)) / bar[t].sqrt()
        tilde = beta[t] * (1 - bar[t - 1]) / (1 - bar[t])
        # Ho et al. 2020, Eq. 7
        of_data, of_x_t = (
            bar[t - 1].sqrt() * beta[t] / (1 - bar[t]),
            (1 - beta[t]).sqrt() * (1 - bar[t - 1]) / (1 - bar[t]),
        )
        p = Normal(of_data * predicted + of_x_t * x_t, (tilde if variance == "small" else beta[t]).sqrt())
        q = Normal(of_data * x_0 + of_x_t * x_t, tilde.sqrt())
        found = VariationalBound(variance)(model, x_0, torch.tensor(t), lambda _: eps)
        assert_close(found, 1000 * kl_divergence(q, p).mean(1) / math.log(2), rtol=1e-7, atol=1e-12)


def test_the_decoder_is_a_distribution_over_grey_levels():
    """Ho et al. 2020, Eq. 13: the probabilities of all 256 levels sum to 1, for any mean."""
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    model = ScoreModel(lambda x, c: torch.zeros_like(x), DDPM)  # eps = 0: x_0 = x_t / alpha
    alpha, sigma = DDPM(torch.tensor(0))
    for value in (-1.0, -0.3, 0.2, 1.3):
        noise = alpha * (value - levels) / sigma  # with which the decoder's mean is value
        bits = VariationalBound()(model, levels, torch.tensor(0), lambda _, noise=noise: noise) / 1000
        assert (2**-bits).sum().item() == pytest.approx(1, abs=1e-9)


def test_the_bound_of_an_exact_model_is_just_above_the_negative_log_likelihood():
    """Continuous data with a density that bins hardly feel: -log p(x_0) - log(bin) in bits, and a bound above it."""
    torch.manual_seed(0)
    means, weights = torch.tensor([-0.3, 0.4]).double(), torch.tensor([0.5, 0.5]).double()
    mixture = GaussianMixtureModel(means[:, None], 0.1, weights, DDPM)
    x_0 = ((mixture.draw(2000)[0].clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    density = (Normal(means, 0.1).log_prob(x_0) + weights.log()).logsumexp(1)
    exact = (-(density + math.log(2 / 255)) / math.log(2)).mean().item()
    # beta, the larger variance, is right for data much wider than the first noise; beta~ for points
    bits, terms = bound_bits_per_dim(mixture, x_0, "large")
    assert terms.shape == (1001, 2000)
    assert_close(bits, terms.sum(0))
    error = 4 * bits.std().item() / 2000**0.5
    assert exact - error < bits.mean().item() < exact + 0.1 + error
    assert bound_bits_per_dim(mixture, x_0, "small")[0].mean().item() > exact + 0.3
    assert terms[-1].max() < 1e-4


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="of discrete levels"):
        VariationalBound().check(VP(), 4)
    with pytest.raises(ValueError, match="variance must be large or small"):
        VariationalBound("medium")
