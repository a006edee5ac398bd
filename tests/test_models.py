"""Predictions invert, and the exact model is exact."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import PREDICTIONS, Estimate, GaussianMixtureModel, Prediction, ScoreModel, conditioning
from score_lightning.models.preconditioning import precondition
from score_lightning.networks import Energy, UNet
from score_lightning.perturbation import perturb
from score_lightning.schedules import VP, cosine, geometric, linear_beta

SCHEDULES = [linear_beta(1e-4, 0.02, 1000), geometric(0.01, 50, 232)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["ddpm", "ncsn"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_inverts(schedule, prediction):
    x_0, eps = torch.randn(2, 4, 3, dtype=torch.float64)
    t = torch.tensor([0, 7, 150, 231])
    alpha, sigma = (a[:, None] for a in schedule(t))
    outputs = {"score": -eps / sigma, "sigma_score": -eps, "eps": eps, "x_0": x_0, "v": alpha * eps - sigma * x_0}
    outputs["velocity"] = eps - x_0
    output = outputs[prediction]
    x_t = perturb(x_0, *schedule(t), eps)
    estimate = ScoreModel(lambda x, c: output, schedule, prediction)(x_t, t)
    assert_close(estimate.eps, eps, rtol=1e-9, atol=1e-9)
    assert_close(estimate.x_0, x_0, rtol=1e-9, atol=1e-9)
    assert_close(estimate.score, -eps / sigma, rtol=1e-9, atol=1e-9)


def test_networks_are_given_time_level_or_log_sigma():
    schedule, seen = geometric(0.01, 1, 10), []
    net = lambda x, c: (seen.append(c), x)[1]  # noqa: E731
    for name in ("time", "level", "log_sigma"):
        ScoreModel(net, schedule, "score", name)(torch.zeros(2, 3), torch.tensor(2))
    assert seen[0].tolist() == [2, 2]
    assert seen[1].tolist() == [7, 7]
    assert_close(seen[2], schedule(torch.tensor([2, 2]))[1].log().float())
    assert seen[2].dtype == torch.float32


def test_networks_embed_continuous_times_in_units_of_their_levels():
    t = torch.tensor([0, 3, 231])
    limit = geometric(0.01, 50, 232).continuous()
    assert_close(conditioning.time(limit, t / 231.0), t.float())
    assert_close(conditioning.time(VP(), torch.tensor(0.5)), torch.tensor(499.5))
    assert_close(conditioning.time_of_1000(geometric(0.01, 50, 232), t), t * 1000 / 232)
    with pytest.raises(ValueError, match="visits the levels of a discrete schedule only"):
        conditioning.level(VP(), torch.tensor(0.5))


def test_labels_reach_the_network_when_given():
    net = lambda x, c, labels: x * labels[:, None]  # noqa: E731
    estimate = ScoreModel(net, SCHEDULES[0])(torch.ones(2, 3), torch.tensor(5), labels=torch.tensor([0, 3]))
    assert_close(estimate.eps[:, 0], torch.tensor([0.0, 3.0]))


def test_x_0_predictions_return_the_output_of_the_network_to_the_bit():
    output, x_t, t = torch.randn(8, 3), torch.randn(8, 3), torch.linspace(0, 999, 8).long()
    estimate = ScoreModel(lambda x, c: output, cosine(1000), "x_0")(x_t, t)
    assert torch.equal(estimate.x_0, output)
    clipped = estimate.clip(-1, 1)
    assert torch.equal(clipped.x_0, output.clamp(-1, 1))


@pytest.mark.parametrize("prediction", ["x_0", "v"])
def test_pure_noise_is_an_ordinary_level(prediction):
    x_0, eps, zero, one = torch.randn(5, 3), torch.randn(5, 3), torch.zeros(()), torch.ones(())
    output = {"x_0": x_0, "v": -x_0}[prediction]
    estimate = Estimate(eps, zero, one, output, PREDICTIONS[prediction])
    assert_close(estimate.x_0, x_0, rtol=0, atol=0)
    assert_close(estimate.eps, eps, rtol=0, atol=0)
    assert_close(estimate.score, -eps, rtol=0, atol=0)
    assert_close(estimate.clip(-0.1, 0.1).eps, eps, rtol=0, atol=0)


@pytest.mark.parametrize("prediction", ["x_0", "v", "edm"])
def test_neither_reading_cancels_in_float32(prediction):
    torch.manual_seed(0)
    schedule, t = cosine(1000), torch.arange(1000)
    x_0, eps = torch.randn(2, 1000, 3, dtype=torch.float64)
    x_t, output = perturb(x_0, *schedule(t), eps), torch.randn(1000, 3, dtype=torch.float64)
    exact, single = (
        ScoreModel(lambda x, c: output.to(x), schedule, prediction)(x_t.to(dtype), t)
        for dtype in (torch.float64, torch.float32)
    )
    assert_close(single.x_0, exact.x_0.float(), rtol=2e-6, atol=2e-6)
    if prediction != "x_0":
        assert_close(single.eps, exact.eps.float(), rtol=2e-6, atol=2e-6)


def test_a_mixture_has_both_readings_without_cancellation():
    schedule, t = cosine(1000), torch.arange(1000)
    means, x_t = torch.tensor([[0.5, -0.5], [-1.0, 0.2]]), torch.randn(1000, 2)
    single = GaussianMixtureModel(means, 0.1, torch.tensor([0.3, 0.7]), schedule)(x_t, t)
    exact = GaussianMixtureModel(means.double(), 0.1, torch.tensor([0.3, 0.7]).double(), schedule)(x_t.double(), t)
    assert_close(exact.x_0, (exact.x_t - exact.sigma * exact.eps) / exact.alpha, rtol=1e-7, atol=1e-7)
    noisy = t >= 500
    assert_close(single.x_0[noisy], exact.x_0[noisy].float(), rtol=1e-5, atol=1e-5)


def test_edm_has_the_coefficients_of_its_table():
    n, data = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64), 0.5
    c_skip, c_out, c_in, c_noise = precondition(n, data)
    assert_close(c_skip, data**2 / (n**2 + data**2))
    assert_close(c_out, n * data / (data**2 + n**2).sqrt())
    assert_close(c_in, 1 / (n**2 + data**2).sqrt())
    assert_close(c_noise, n.log() / 4)


def test_a_prediction_gives_at_least_one_reading():
    with pytest.raises(ValueError, match="gives eps, x_0 or both"):
        Prediction()


def test_clipping_moves_x_0_into_range_and_keeps_the_estimate_consistent():
    alpha, sigma = SCHEDULES[0](torch.tensor(700))
    estimate = Estimate(torch.randn(5, 3), alpha, sigma, torch.randn(5, 3)).clip(-1, 1)
    assert estimate.x_0.abs().max() <= 1 + 1e-5
    assert_close(estimate.x_t, estimate.alpha * estimate.x_0 + estimate.sigma * estimate.eps)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown prediction 'noise'; choose one of score, sigma_score, eps, x_0, v"):
        ScoreModel(lambda x, c: x, SCHEDULES[0], "noise")
    with pytest.raises(ValueError, match="unknown conditioning"):
        ScoreModel(lambda x, c: x, SCHEDULES[0], "eps", "sigma")


@pytest.fixture(params=SCHEDULES, ids=["ddpm", "ncsn"])
def mixture(request):
    means = torch.tensor([[0.5, -1.0], [-0.3, 0.8]], dtype=torch.float64)
    return GaussianMixtureModel(means, 0.1, torch.tensor([0.3, 0.7], dtype=torch.float64), request.param)


def test_mixture_score_is_the_gradient_of_its_density(mixture):
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0, 5, 20, 70, 150, 231])
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, t).sum(), x)
    assert_close(mixture(x, t).score.detach(), gradient, rtol=1e-9, atol=1e-9)
    assert_close(mixture(x[:1], t[0]).score.detach(), gradient[:1], rtol=1e-9, atol=1e-9)


def test_mixture_density_integrates_to_one(mixture):
    axis = torch.linspace(-4, 4, 801, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    total = mixture.log_prob(grid, torch.tensor(60)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-6)


def test_mixture_density_equals_torch_distributions(mixture):
    alpha, sigma = mixture.schedule(torch.tensor(40))
    std = (alpha**2 * mixture.std**2 + sigma**2).sqrt()
    components = torch.distributions.Independent(torch.distributions.Normal(alpha * mixture.means, std), 1)
    exact = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), components)
    x = torch.randn(5, 2, dtype=torch.float64)
    assert_close(mixture.log_prob(x, torch.tensor(40)), exact.log_prob(x))


def test_mixture_keeps_the_dtype_and_device_of_its_data(mixture):
    for t in (torch.tensor(40), torch.tensor([40, 50])):
        x = torch.randn(2, 2)
        assert mixture(x, t).score.dtype == mixture.log_prob(x, t).dtype == torch.float32
    on_meta = mixture(torch.empty(2, 2, device="meta"), torch.tensor(40)).score
    assert on_meta.device.type == "meta"


def test_mixtures_of_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(K, D\)"):
        GaussianMixtureModel(torch.zeros(2), 1.0, torch.ones(2), SCHEDULES[0])
    with pytest.raises(ValueError, match="positive"):
        GaussianMixtureModel(torch.zeros(2, 1), 1.0, torch.tensor([1.0, 0.0]), SCHEDULES[0])


def test_energies_give_the_score_of_their_density():
    """f = |x|^2 / 2v is a Gaussian's; half the squared distance from the output is made of a network of x's shape."""
    x, c = torch.randn(5, 3, dtype=torch.float64), torch.zeros(5)
    assert_close(Energy(lambda x, c: x.square().sum(1) / (2 * 0.7))(x, c), -x / 0.7)
    assert_close(Energy(lambda x, c: 0.25 * x)(x, c), -(0.75**2) * x)
    with pytest.raises(ValueError, match=r"an energy needs outputs of shape \(5,\) or \(5, 3\), got \(5, 2\)"):
        Energy(lambda x, c: x[:, :2])(x, c)


def test_energy_scores_are_conservative_where_other_networks_are_not():
    weights = torch.randn(3, 3, dtype=torch.float64)
    net = lambda x, c: torch.sin(x @ weights)  # noqa: E731
    x, c = torch.randn(1, 3, dtype=torch.float64), torch.zeros(1)
    jacobian = lambda f: torch.autograd.functional.jacobian(lambda x: f(x, c)[0], x)[:, 0]  # noqa: E731
    curl = lambda j: (j - j.T).abs().max().item()  # noqa: E731
    assert curl(jacobian(net)) > 0.1
    assert curl(jacobian(Energy(net))) < 1e-12


def test_energy_models_train_and_sample_like_score_models():
    net = UNet(image_size=4, image_channels=1, channels=8, multipliers=(1,), blocks=1, attention=(4,), groups=4)
    model, x, t = ScoreModel(net, SCHEDULES[0], "energy"), torch.randn(2, 1, 4, 4), torch.tensor([3, 700])
    model(x, t).eps.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    assert sum(p.grad is not None for p in net.parameters()) > 10
    expected = model(x, t).score.detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            found = model(torch.clone(x), t).score
        assert not found.requires_grad
        assert_close(found, expected)
