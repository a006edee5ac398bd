"""One denoising objective is NCSN's loss and DDPM's, and the exact score minimises it."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import Estimate, GaussianMixtureModel, ScoreModel
from score_lightning.networks import UNet
from score_lightning.objectives import Denoising, Explicit, Implicit, Sliced
from score_lightning.schedules import EDM, VE, VP, SubVP, geometric, linear_beta

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
    with pytest.raises(ValueError, match="sigma2, uniform, min_snr, likelihood, edm"):
        Denoising("sigma")
    with pytest.raises(ValueError, match="times must be one of uniform, antithetic, log_normal, importance"):
        Denoising(times="normal")
    with pytest.raises(ValueError, match="antithetic times are drawn in pairs"):
        Denoising(times="antithetic", stratified=True)
    with pytest.raises(ValueError, match="log_std must be positive"):
        Denoising(log_std=0)
    with pytest.raises(ValueError, match="at least one projection"):
        Sliced(0)
    with pytest.raises(ValueError, match=r"of 300 dimensions takes 300 backward passes.*max_dim=300"):
        Implicit().check(VP(), 300)
    for objective in (Denoising("likelihood"), Denoising(times="log_normal"), Denoising(times="importance")):
        with pytest.raises(ValueError, match="discrete levels have no SDE"):
            objective.check(DDPM, 4)
        objective.check(VP(), 4)
    with pytest.raises(ValueError, match="gamma must be positive"):
        Denoising("min_snr", gamma=0)


@pytest.mark.parametrize("schedule", [VE(), VP(), SubVP(), EDM()], ids=["ve", "vp", "sub", "edm"])
def test_likelihood_weighting_is_g2(schedule):
    """Song et al. 2021c, Eq. 8: lambda = g^2, as a weight of the score loss."""
    model = ScoreModel(lambda x, c: torch.sin(x), schedule, "score")
    x_0, eps = torch.randn(2, 4, 6, dtype=torch.float64)
    t = schedule.at(torch.rand(4, dtype=torch.float64))
    plain = Denoising("uniform")(model, x_0, t, lambda x: eps)
    assert_close(Denoising("likelihood")(model, x_0, t, lambda x: eps), schedule.diffusion2(t) * plain)


def test_edm_weight_and_preconditioning_have_the_published_constants():
    """Karras et al. 2022, Table 1, at sigma 0.5: c_skip 0.5, c_out 0.3535534, c_in 1.4142136, c_noise -0.1732868."""
    seen = []

    def net(x, c):
        seen.append((x, c))
        return torch.full_like(x, 3.0)

    model, x, t = ScoreModel(net, EDM(), "edm", "edm"), torch.full((1, 2), 2.0).double(), torch.tensor(0.5).double()
    x_0 = model(x, t).x_0
    assert_close(x_0, torch.full_like(x, 0.5 * 2 + 0.3535534 * 3), rtol=1e-7, atol=0)
    assert_close(seen[0][0], 1.4142136 * x, rtol=1e-7, atol=0)
    assert seen[0][1].item() == pytest.approx(-0.1732868, abs=1e-7)
    eps, clean = torch.tensor([[0.3, -0.2]]).double(), torch.tensor([[0.1, 0.4]]).double()
    loss = Denoising("edm")(model, clean, t, lambda _: eps)
    error = model(clean + 0.5 * eps, t).x_0 - clean
    assert_close(loss, 8 * error.square().mean(1), rtol=1e-9, atol=0)


def test_log_normal_times_have_the_distribution_of_edm():
    u = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    log = Denoising(times="log_normal").draw_t(EDM(), u).log()
    assert log.mean() == pytest.approx(-1.2, abs=1e-3)
    assert log.std() == pytest.approx(1.2, abs=2e-3)
    alpha, sigma = VP()(Denoising(times="log_normal").draw_t(VP(), u))
    assert (sigma / alpha).log().mean() == pytest.approx(-1.2, abs=0.01)


@pytest.mark.parametrize("weight", ["likelihood", "sigma2", "velocity"])
def test_importance_sampled_times_have_the_same_expectation_and_less_variance(weight):
    schedule = VP(t_min=1e-3)
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    uniform, importance = Denoising(weight), Denoising(weight, "importance")
    model = ScoreModel(lambda x, c: 0.5 * torch.ones_like(x), schedule)
    zero = torch.zeros(len(u), 1, dtype=torch.float64)
    losses = [o(model, zero, o.draw_t(schedule, u), torch.zeros_like) for o in (uniform, importance)]
    assert losses[1].mean().item() == pytest.approx(losses[0].mean().item(), rel=1e-2)
    assert losses[1].std() <= losses[0].std() + 1e-9


def newton(objective, x_0, t, randn_like=torch.randn_like):
    """The minimizer (A, b) of a loss that is quadratic in them."""
    d = x_0.shape[1]

    def loss(flat):
        net = lambda x, c: x @ flat[: d * d].view(d, d).T + flat[d * d :]  # noqa: E731
        return objective(ScoreModel(net, TINY, "score"), x_0, t, randn_like).mean()

    start = torch.zeros(d * d + d, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(loss, start)
    gradient = torch.autograd.functional.jacobian(loss, start)
    solution = torch.linalg.solve(hessian, -gradient)
    return solution[: d * d].view(d, d), solution[d * d :]


TINY = geometric(1e-3, 1e-3, 1)


def test_implicit_and_sliced_matching_of_a_linear_score_find_the_exact_one():
    """For Gaussian data the minimizer is -C^-1 (x - m), C and m those of the data: to 1e-6."""
    torch.manual_seed(0)
    x_0 = (
        torch.randn(500, 3, dtype=torch.float64) @ torch.tensor([[1.0, 0.4, 0], [0, 0.7, 0.2], [0, 0, 1.3]]).double()
        + 0.5
    )
    exact = -torch.linalg.inv(x_0.T.cov(correction=0))
    t = torch.tensor(0)
    basis = iter(3**0.5 * torch.eye(3, dtype=torch.float64).repeat(100, 1))
    whole = lambda x: next(basis).expand_as(x)  # noqa: E731 - directions that are exact together
    for objective, noise in [(Implicit(clean=True), None), (Sliced(3, clean=True), whole)]:
        a, b = newton(objective, x_0, t, noise or torch.randn_like)
        assert_close(a, exact, rtol=1e-6, atol=1e-6)
        assert_close(b, -exact @ x_0.mean(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reduced", [False, True])
def test_sliced_matching_is_unbiased(reduced):
    torch.manual_seed(0)
    model = ScoreModel(lambda x, c: torch.sin(2 * x) - x * x.sum(1, keepdim=True), TINY, "score")
    x_0 = torch.randn(1, 4, dtype=torch.float64).expand(40_000, 4)
    t = torch.tensor(0)
    exact = Implicit(clean=True)(model, x_0[:1], t)
    found = Sliced(1, reduced, clean=True)(model, x_0, t)
    assert (found.mean() - exact).abs() < 4 * found.std() / len(found) ** 0.5
    many = Sliced(8, reduced, clean=True)(model, x_0[:5000], t)
    assert many.std() < 0.6 * found.std()


@pytest.mark.parametrize("schedule", [NCSN, VP()], ids=["discrete", "continuous"])
def test_implicit_sliced_and_denoising_differ_by_a_constant_at_every_level(schedule):
    """Vincent 2011; Song et al. 2019: so differences between two models are the same, here within 4 standard errors."""
    torch.manual_seed(0)
    mixture = GaussianMixtureModel(
        torch.tensor([[-1.0, 0.3], [1.0, 0.0]]).double(), 0.3, torch.ones(2).double(), schedule
    )
    x_0, _ = mixture.draw(20_000)
    t = schedule.at(torch.tensor(0.7))
    models = [mixture, ScoreModel(lambda x, c: torch.sin(x), schedule, "eps")]
    differences = []
    for objective in (Explicit(mixture, "sigma2"), Denoising(), Implicit(), Sliced()):
        a, b = (objective(model, x_0, t) for model in models)
        differences.append(((b - a).mean().item(), ((b - a).std() / len(x_0) ** 0.5).item()))
    for mean, error in differences[1:]:
        assert abs(mean - differences[0][0]) < 4 * (error + differences[0][1])


@pytest.mark.parametrize("objective", [Implicit(), Sliced(), Sliced(2, False)], ids=["implicit", "sliced", "plain"])
def test_second_derivatives_work_with_attention_in_validation_and_in_mixed_precision(objective):
    net = UNet(image_size=4, image_channels=1, channels=8, multipliers=(1, 2), blocks=1, attention=(4, 2), groups=4)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model, x_0, t = ScoreModel(net, DDPM), torch.randn(2, 1, 4, 4), torch.tensor([3, 700])
    objective(model, x_0, t).mean().backward()
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    torch.manual_seed(1)
    expected = objective(model, x_0, t).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        torch.manual_seed(1)
        with context:
            found = objective(model, torch.clone(x_0), t)
        assert not found.requires_grad
        assert_close(found, expected)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective(model, x_0, t).mean()
    loss.backward()
    assert torch.isfinite(loss)


def test_importance_times_are_those_of_the_schedule_at_hand():
    u, objective = torch.rand(50), Denoising("likelihood", times="importance")
    objective.draw_t(VP(), u)
    for schedule in (VP(0.1, 5.0), SubVP(), VP()):
        fresh = Denoising("likelihood", times="importance")
        assert_close(objective.draw_t(schedule, u), fresh.draw_t(schedule, u), rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [linear_beta(1e-4, 0.02, 1000), VP()], ids=["discrete", "continuous"])
def test_antithetic_times_are_uniform_in_pairs_that_mirror_each_other(schedule):
    t = Denoising(times="antithetic").draw_t(schedule, torch.rand(10_001))
    ends = schedule.t_min + schedule.t_max
    assert_close(t[:-1:2] + t[1::2], (ends if t.is_floating_point() else ends.long()).expand(5000).to(t))
    plain = Denoising().draw_t(schedule, torch.rand(10_001))
    assert t.double().mean().item() == pytest.approx(plain.double().mean().item(), rel=0.03)
    assert t.dtype == plain.dtype
