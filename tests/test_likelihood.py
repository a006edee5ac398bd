"""Likelihood and latents against closed forms."""

import math

import pytest
import torch
from torch.testing import assert_close

from score_lightning.conditional import Clipped
from score_lightning.likelihood import bits_per_dim, check_times, decode, encode, interpolate
from score_lightning.models import GaussianMixtureModel, ScoreModel
from score_lightning.networks import MLP
from score_lightning.runtime.randomness import ImageNoise
from score_lightning.samplers import DDIM, Langevin, sample
from score_lightning.samplers.flow import ProbabilityFlow
from score_lightning.schedules import EDM, VE, VP, SubVP, cosine, geometric, linear_beta

SCHEDULES = {
    "ve": VE(), "vp": VP(), "sub_vp": SubVP(), "edm": EDM(), "ddpm": linear_beta(1e-4, 0.02, 1000),
    "cosine": cosine(100), "ncsn": geometric(0.01, 50, 232),
}  # fmt: skip
LIMITS = {"cosine", "ncsn"}  # of discrete schedules, besides DDPM's: they take longest
EVERY = [pytest.param(value, marks=pytest.mark.slow if name in LIMITS else ()) for name, value in SCHEDULES.items()]
MEAN, STD = 0.4, 0.3


def gaussian(schedule, dim=3):
    return GaussianMixtureModel(torch.full((1, dim), MEAN, dtype=torch.float64), STD, torch.ones(1), schedule)


def ends(schedule):
    limit = schedule.continuous()
    return [*limit(limit.t_min), *limit(limit.t_max)]


def exact_flow(schedule, x):
    """x_T and the factor d x_T / d x_0 of the flow of N(MEAN, STD^2) data, which keeps (x - alpha m) / std_t."""
    alpha_0, sigma_0, alpha_T, sigma_T = ends(schedule)
    std_0, std_T = ((a**2 * STD**2 + s**2).sqrt() for a, s in ((alpha_0, sigma_0), (alpha_T, sigma_T)))
    return alpha_T * MEAN + (x - alpha_0 * MEAN) * std_T / std_0, std_T / std_0


@pytest.mark.parametrize("schedule", EVERY, ids=SCHEDULES)
def test_likelihood_equals_the_prior_pulled_back_through_the_flow(schedule):
    x = MEAN + STD * torch.randn(50, 3, dtype=torch.float64)
    latents, factor = exact_flow(schedule, x)
    prior = torch.distributions.Normal(0, ends(schedule)[3]).log_prob(latents)
    expected = -(prior + factor.log()).mean(1) / math.log(2)
    found = bits_per_dim(gaussian(schedule), x)
    assert found.shape == (50,)
    assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", EVERY, ids=SCHEDULES)
def test_latents_equal_the_exact_flow_and_lead_back(schedule):
    model, x = gaussian(schedule), MEAN + STD * torch.randn(20, 3, dtype=torch.float64)
    latents = encode(model, x)
    expected, _ = exact_flow(schedule, x)
    assert_close(latents, expected, rtol=1e-3, atol=1e-4)
    assert_close(decode(model, latents), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("schedule", [VE(), VP(), SubVP()], ids=["ve", "vp", "sub_vp"])
def test_mean_over_samples_of_a_mixture_is_its_cross_entropy(schedule):
    means = torch.tensor([[-0.8, 0.5], [0.7, -0.6]], dtype=torch.float64)
    model = GaussianMixtureModel(means, 0.1, torch.tensor([0.3, 0.7], dtype=torch.float64), schedule)
    x, _ = model.draw(1000)
    exact = -model.log_prob(x, schedule.t_min).mean() / (2 * math.log(2))
    assert bits_per_dim(model, x).mean().item() == pytest.approx(exact.item(), abs=1e-3)


def test_hutchinson_is_unbiased_and_exact_where_the_jacobian_is_a_multiple_of_the_identity():
    x = torch.randn(5, 3, dtype=torch.float64)
    model = gaussian(VP())
    assert_close(bits_per_dim(model, x, "hutchinson"), bits_per_dim(model, x, "exact"), rtol=0, atol=1e-5)
    means = torch.tensor([[-0.8, 0.5], [0.7, -0.6]], dtype=torch.float64)
    mixture = GaussianMixtureModel(means, 0.4, torch.ones(2, dtype=torch.float64), VP())
    x = torch.tensor([[0.1, -0.2]], dtype=torch.float64)
    found = bits_per_dim(mixture, x.expand(2000, 2), "hutchinson", flow=ProbabilityFlow(1e-4, 1e-4))
    error = found.std() / math.sqrt(2000)
    assert found.std() > 1e-3  # it is random here
    assert abs(found.mean() - bits_per_dim(mixture, x).item()) < 4 * error


def test_one_direction_is_kept_along_the_whole_path():
    asked = []

    def signs(x):
        asked.append(x.shape)
        return torch.ones_like(x)

    bits_per_dim(gaussian(VP(), 20), torch.zeros(2, 20, dtype=torch.float64), randn_like=signs)
    assert asked == [(2, 20)]


@pytest.mark.slow
def test_an_image_does_not_change_with_those_beside_it():
    torch.manual_seed(0)
    model = ScoreModel(MLP(dim=2, width=16, scale=100.0), VP(), "eps", "log_sigma").double()
    x = torch.randn(4, 2, dtype=torch.float64)
    x[3] *= 1000  # hard to integrate
    together, alone = bits_per_dim(model, x), torch.cat([bits_per_dim(model, row[None]) for row in x])
    assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_a_path_that_cannot_be_followed_is_nan():
    x = torch.tensor([[0.1, 0.2], [math.nan, 0.0]], dtype=torch.float64)
    found = bits_per_dim(gaussian(VP(), 2), x)
    assert found.isnan().tolist() == [False, True]
    assert_close(found[:1], bits_per_dim(gaussian(VP(), 2), x[:1]), rtol=1e-9, atol=1e-9)  # the other is not given up
    short = ProbabilityFlow(max_steps=2)
    assert encode(gaussian(VP(), 2), x[:1], short).isnan().all()


def test_interpolation_keeps_the_length_between_latents_of_one_length():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0])
    path = interpolate(a, b, 3)
    assert_close(path, torch.stack([a, torch.tensor([3.0, 3.0]) / math.sqrt(2), b]))
    assert_close(interpolate(a, a, 4), a.expand(4, 2))
    with pytest.raises(ValueError, match="two ends"):
        interpolate(a, b, 1)


def test_a_latent_of_zero_is_an_end_like_any_other():
    zero, other = torch.zeros(3), torch.tensor([1.0, 2.0, -2.0])
    path = interpolate(zero, other, 3)
    assert_close(path[[0, 2]], torch.stack([zero, other]))
    assert path.isfinite().all()
    assert interpolate(zero, zero, 3).tolist() == [[0.0] * 3] * 3


def test_no_images_have_no_likelihoods_latents_or_samples():
    model, none = gaussian(VP()), torch.empty(0, 3)
    assert bits_per_dim(model, none).shape == (0,)
    assert decode(model, encode(model, none)).shape == none.shape
    assert ImageNoise(0, [])(none).shape == none.shape
    assert sample(model, none, VP().times(3), DDIM(), Langevin(snr=0.1)).shape == none.shape


def test_networks_of_integer_levels_are_refused():
    ladder = geometric(0.01, 1, 10)
    model = ScoreModel(MLP(dim=2, width=16), ladder, "score", "level")
    with pytest.raises(ValueError, match="visits the levels of a discrete schedule only"):
        bits_per_dim(model, torch.zeros(1, 2))
    table = torch.nn.Embedding(10, 2)
    model = ScoreModel(lambda x, c: x + table(c), ladder, "score", "time")
    with pytest.raises(ValueError, match="does not take the times between its levels"):
        check_times(model, torch.zeros(1, 2))


def test_other_traces_and_tolerances_are_refused():
    with pytest.raises(ValueError, match="exact or hutchinson"):
        bits_per_dim(gaussian(VP()), torch.zeros(1, 3), "half")
    with pytest.raises(ValueError, match="tol must be positive"):
        ProbabilityFlow(rtol=0)


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: Clipped(model, -1, 1)], ids=["alone", "wrapped"])
def test_a_compiled_network_is_refused(wrap):
    model = ScoreModel(torch.nn.Module(), VP())
    model.net.compile()
    with pytest.raises(ValueError, match="a compiled one does not have"):
        bits_per_dim(wrap(model), torch.zeros(2, 3))
