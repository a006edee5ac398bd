"""The variational bound against its own definitions, torch's distributions and an exact likelihood."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from score_lightning.models import GaussianMixtureModel, ScoreModel
from score_lightning.objectives import Denoising, VariationalBound
from score_lightning.objectives.bound import Hybrid, bound_bits_per_dim
from score_lightning.samplers import Ancestral
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


class TwoHalves(torch.nn.Module):
    """eps and v of images (B, C, H, W) as parameters of one size each."""

    def __init__(self, eps, v):
        super().__init__()
        self.eps, self.v = (torch.nn.Parameter(torch.tensor(a, dtype=torch.float64)) for a in (eps, v))

    def forward(self, x, _):
        return torch.cat([self.eps * x.sin(), self.v.expand_as(x)], 1)


@pytest.mark.parametrize(("v", "fixed"), [(-1.0, "small"), (1.0, "large")])
def test_learned_variances_at_their_ends_are_the_fixed_ones(v, fixed):
    model, x_0 = ScoreModel(TwoHalves(0.7, v), DDPM), torch.rand(4, 3, 2, 2, dtype=torch.float64) * 2 - 1
    t, z = torch.tensor([1, 30, 600, 999]), torch.randn(4, 3, 2, 2, dtype=torch.float64)
    learned, plain = (VariationalBound(variance)(model, x_0, t, lambda _: z) for variance in ("learned", fixed))
    assert_close(learned, plain, rtol=1e-9, atol=0)
    steps = [Ancestral(a).step(model(x_0, t[2]), DDPM, t[2], t[1], lambda _: z) for a in ("learned", fixed)]
    assert_close(*steps, rtol=1e-12, atol=1e-12)


def test_learned_variances_are_interpolated_in_their_logarithm():
    """Nichol & Dhariwal 2021, Eq. 15, and the same variance at every step from t = 1 on in the first term."""
    model, x = ScoreModel(TwoHalves(0.0, 0.2), DDPM), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    step = Ancestral("learned").step(
        model(x, torch.tensor(500)), DDPM, torch.tensor(500), torch.tensor(499), torch.ones_like
    )
    beta, tilde = 1e-4 + 500 * (0.02 - 1e-4) / 999, VariationalBound().coefficients(DDPM, torch.tensor(500))[1].item()
    assert step.item() ** 2 == pytest.approx(math.exp(0.6 * math.log(beta) + 0.4 * math.log(tilde)), rel=1e-9)
    small, large = VariationalBound("learned").coefficients(DDPM, torch.tensor(0))[1:]
    assert small.item() == pytest.approx(5.4531877e-5, rel=1e-7)
    assert large.item() == pytest.approx(1e-4, rel=1e-9)


def test_the_bound_is_evaluated_with_a_clipped_x_0_and_trained_without():
    """The terms of a network that leaves the range are those of one that stays at its border (Ho et al.'s code)."""
    schedule, x_0 = cosine(20), torch.rand(4, 1, 2, 2, dtype=torch.float64) * 2 - 1
    wild = ScoreModel(lambda x, c: 3 * torch.sign(x), schedule, "x_0")
    tame = ScoreModel(lambda x, c: torch.sign(x), schedule, "x_0")
    zeros = torch.zeros_like
    clipped, same = (bound_bits_per_dim(model, x_0, "small", zeros)[1] for model in (wild, tame))
    assert_close(clipped, same)
    t = torch.tensor(15)
    trained = VariationalBound("small")(wild, x_0, t, zeros) / 20
    assert (trained > 1.5 * clipped[15]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_far_from_the_mean_keep_their_digits(dtype):
    """Against mpmath-like digits of the normal distribution's tail: log_ndtr of both ends in float64."""
    bound, std = VariationalBound(), 0.0074
    x = torch.linspace(-0.9, 0.9, 7, dtype=dtype)
    mean = x + 9 * std
    nats = bound._decode(x, mean, torch.full_like(x, std**2))
    wide, half = x.double(), 1 / 255
    upper, lower = (torch.special.log_ndtr((wide + side - mean.double()) / std) for side in (half, -half))
    assert_close(nats.double(), -(upper + torch.log(-torch.expm1(lower - upper))), rtol=1e-3, atol=0)


def test_only_the_first_level_is_decoded():
    """A batch of several times has the terms of each time by itself, to the bit on the CPU."""
    model, x_0 = ScoreModel(lambda x, c: torch.sin(x), DDPM), torch.rand(5, 1, 3, 3) * 2 - 1
    t = torch.tensor([0, 7, 0, 999, 1])
    together = VariationalBound()(model, x_0, t, torch.ones_like)
    for i in range(5):
        assert_close(
            VariationalBound()(model, x_0[i : i + 1], t[i], torch.ones_like)[0], together[i], rtol=1e-6, atol=0
        )


def test_the_hybrid_loss_trains_eps_by_l_simple_and_variances_by_the_bound():
    x_0, z = torch.rand(4, 3, 2, 2, dtype=torch.float64) * 2 - 1, torch.randn(4, 3, 2, 2, dtype=torch.float64)
    t, net = torch.tensor([0, 3, 300, 999]), TwoHalves(0.7, 0.3)
    model = ScoreModel(net, DDPM)

    def gradients(objective):
        return torch.autograd.grad(objective(model, x_0, t, lambda _: z).sum(), [net.eps, net.v], allow_unused=True)

    hybrid, simple, bound = (gradients(o) for o in (Hybrid(), Denoising(), VariationalBound("learned")))
    assert_close(hybrid[0], simple[0], rtol=1e-9, atol=0)
    assert_close(hybrid[1], 0.001 * bound[1], rtol=1e-9, atol=0)
    assert simple[1] is None or simple[1] == 0
    value = Hybrid()(model, x_0, t, lambda _: z)
    parts = Denoising()(model, x_0, t, lambda _: z), VariationalBound("learned")(model, x_0, t, lambda _: z)
    assert_close(value, parts[0] + 0.001 * parts[1])


def test_a_network_without_variances_is_refused_where_they_are_asked_for():
    model, x = ScoreModel(lambda x, c: x, DDPM), torch.zeros(2, 3, 2, 2)
    with pytest.raises(ValueError, match=r"net\.learned_variance=true"):
        VariationalBound("learned")(model, x, torch.tensor(3))
    with pytest.raises(ValueError, match="not learned variances"):
        Ancestral("learned").step(model(x, torch.tensor(3)), DDPM, torch.tensor(3), torch.tensor(2), torch.randn_like)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="of discrete levels"):
        VariationalBound().check(VP(), 4)
    with pytest.raises(ValueError, match="variance must be one of large, small, learned"):
        VariationalBound("medium")
