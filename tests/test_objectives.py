"""One denoising objective is NCSN's loss and DDPM's, and the exact score minimises it."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import Estimate, GaussianMixtureModel, ScoreModel
from score_lightning.objectives import Denoising
from score_lightning.schedules import geometric, linear_beta

DDPM, NCSN = linear_beta(1e-4, 0.02, 1000), geometric(0.01, 1, 10)


def case(schedule, prediction):
    """A model with an arbitrary smooth network, data, times and the noise that the objective will draw."""
    x_0, eps = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    t = torch.randint(schedule.levels, (4,))
    model = ScoreModel(lambda x, c: torch.sin(x) + 0.1 * c[:, None, None], schedule, prediction)
    return model, x_0, eps, t


def test_denoising_with_sigma2_equals_the_ncsn_loss():
    """Song & Ermon 2019, Eq. 5-6, as mean instead of half the sum over dimensions."""
    model, x_0, eps, t = case(NCSN, "score")
    sigma = NCSN(t)[1][:, None, None]
    score = model.net(x_0 + sigma * eps, t)
    ncsn = (sigma**2 * (score + (x_0 + sigma * eps - x_0) / sigma**2) ** 2).mean((1, 2))
    assert_close(Denoising()(model, x_0, t, lambda x: eps), ncsn, rtol=1e-9, atol=0)


def test_denoising_with_sigma2_equals_ddpm_l_simple():
    """Ho et al. 2020, Eq. 14."""
    model, x_0, eps, t = case(DDPM, "eps")
    alpha_bar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).mul(-1).log1p().cumsum(0).exp()[t, None, None]
    eps_hat = model.net(alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps, t)
    assert_close(Denoising()(model, x_0, t, lambda x: eps), ((eps - eps_hat) ** 2).mean((1, 2)), rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", [DDPM, NCSN], ids=["ddpm", "ncsn"])
def test_weights_multiply_the_score_loss(schedule):
    model, x_0, eps, t = case(schedule, "eps")
    alpha, sigma = schedule(t)
    plain = Denoising()(model, x_0, t, lambda x: eps) / sigma**2  # lambda = 1
    assert_close(Denoising("uniform")(model, x_0, t, lambda x: eps), plain)
    snr = alpha**2 / sigma**2
    x_0_loss = plain * sigma**4 / alpha**2
    assert_close(Denoising("min_snr", gamma=5.0)(model, x_0, t, lambda x: eps), x_0_loss * snr.clamp(max=5.0))


def test_times_of_shape_zero_equal_repeated_ones():
    model, x_0, eps, _ = case(DDPM, "v")
    one, many = torch.tensor(300), torch.full((4,), 300)
    for weight in ("sigma2", "uniform", "min_snr"):
        objective = Denoising(weight)
        assert_close(objective(model, x_0, one, lambda x: eps), objective(model, x_0, many, lambda x: eps))


def test_exact_score_is_a_stationary_point_of_the_denoising_loss():
    """d/d delta E|eps_hat + delta h(x_t) - eps|^2 = 0 at the exact score for every direction h: here for three."""
    mixture = GaussianMixtureModel(torch.tensor([[-1.0], [1.0]]).double(), 0.2, torch.tensor([0.3, 0.7]).double(), DDPM)
    torch.manual_seed(0)
    x_0, _ = mixture.draw(200_000)
    t = torch.tensor(300)
    delta = torch.zeros(len(x_0), 1, dtype=torch.float64, requires_grad=True)
    for h in (torch.ones_like, torch.sin, torch.square):

        def shifted(x_t, t, h=h):
            exact = mixture(x_t, t)
            return Estimate(x_t, exact.alpha, exact.sigma, exact.eps + delta * h(x_t))

        shifted.schedule = DDPM
        (slopes,) = torch.autograd.grad(Denoising()(shifted, x_0, t).sum(), delta)
        assert slopes.mean().abs() < 4 * slopes.std() / len(x_0) ** 0.5


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="sigma2, uniform, min_snr"):
        Denoising("sigma")
    with pytest.raises(ValueError, match="gamma must be positive"):
        Denoising("min_snr", gamma=0)
