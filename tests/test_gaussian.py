"""The exact model of Gaussian data is exact."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import GaussianMixtureModel, GaussianModel
from score_lightning.schedules import VE, VP, cosine

MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
ROOT = torch.tensor([[1.0, 0.2, 0.0], [0.0, 0.5, -0.7], [0.3, 0.0, 1e-3]], dtype=torch.float64)
FULL = ROOT @ ROOT.mT


@pytest.mark.parametrize("covariance", [FULL, FULL.diagonal()], ids=["full", "diagonal"])
@pytest.mark.parametrize(("schedule", "t"), [(VP(), 0.3), (VE(), 0.7), (cosine(100), 60)], ids=["vp", "ve", "cosine"])
def test_density_and_score_are_those_of_torch(covariance, schedule, t):
    model, t = GaussianModel(MEAN, covariance, schedule), torch.tensor(t)
    alpha, sigma = schedule(t)
    full = covariance if covariance.ndim == 2 else covariance.diag()
    exact = torch.distributions.MultivariateNormal(alpha * MEAN, alpha**2 * full + sigma**2 * torch.eye(3))
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert_close(model.log_prob(x, t), exact.log_prob(x))
    (gradient,) = torch.autograd.grad(exact.log_prob(x).sum(), x)
    estimate = model(x, t)
    assert_close(estimate.score, gradient)
    assert_close(alpha * estimate.x_0 + sigma * estimate.eps, x)
    assert_close(model(x[:1], t.expand(1)).score, gradient[:1])


def test_it_is_the_mixture_of_one_component():
    mixture = GaussianMixtureModel(MEAN[None], 0.3, torch.ones(1, dtype=torch.float64), VP())
    model = GaussianModel(MEAN, torch.full((3,), 0.09, dtype=torch.float64), VP())
    x, t = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.01, 0.2, 0.5, 1.0])
    for name in ("eps", "x_0", "score"):
        assert_close(getattr(model(x, t), name), getattr(mixture(x, t), name))


def test_draws_have_its_moments():
    torch.manual_seed(0)
    drawn = GaussianModel(MEAN, FULL, VP()).draw(200_000)
    assert_close(drawn.mean(0), MEAN, rtol=0, atol=0.01)
    assert_close(drawn.mT.cov(), FULL, rtol=0, atol=0.02)


def test_data_without_spread_have_a_readout_at_no_signal():
    model = GaussianModel(MEAN, torch.zeros(3, dtype=torch.float64), cosine(1000))
    x = torch.randn(2, 3, dtype=torch.float64)
    assert_close(model(x, torch.tensor(999)).x_0, MEAN.expand(2, 3))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (torch.eye(2), "must be"),
        (torch.ones(3, 1), "must be"),
        (torch.eye(3).cumsum(0), "symmetric"),
        (torch.diag(torch.tensor([1.0, 1.0, -0.1])), "negative eigenvalue"),
        (torch.tensor([1.0, 1.0, -0.1]), "negative eigenvalue"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianModel(torch.zeros(3), covariance, VP())
