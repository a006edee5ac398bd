"""Conditions, and models conditioned on pictures, against exact conditional distributions."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from score_lightning.conditional import (
    AugmentationConditioned,
    BicubicDownsample,
    Downsample,
    Given,
    Gray,
    Grayscale,
    LabelConditioned,
    LowResolution,
    Masked,
    Paired,
    PictureConditioned,
    Strength,
    adjoint,
    condition,
)
from score_lightning.conditional.masks import MASKS, NUMBERS, draw_masks
from score_lightning.data.pixels import PixelRange
from score_lightning.generation.generator import Generator
from score_lightning.likelihood import bits_per_dim, continuous
from score_lightning.models import GaussianModel, ScoreModel
from score_lightning.networks import LightUNet, NCSNpp, RefineNet, UNet
from score_lightning.objectives import Denoising
from score_lightning.runtime.randomness import ImageNoise
from score_lightning.samplers import DDIM, Ancestral, Sampler
from score_lightning.schedules import VP, geometric, linear_beta

DDPM = linear_beta(1e-4, 0.02, 1000)
IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("factor", [2, 4])
def test_a_low_resolution_is_the_mean_of_squares_brought_back_bicubically(factor):
    c = LowResolution(factor=factor)
    y = c.observe(IMAGES)
    assert torch.equal(y, Downsample(factor).forward(IMAGES))
    assert_close(y, IMAGES.unflatten(3, (-1, factor)).unflatten(2, (-1, factor)).mean((3, 5)))
    shown = c.present(y)
    assert c.channels(3) == shown.shape[1] == 3
    for row, picture in zip(y.flatten(0, 1), shown.flatten(0, 1), strict=True):
        exact = Image.fromarray(row.numpy()).resize((8, 8), Image.Resampling.BICUBIC)
        assert_close(picture, torch.from_numpy(np.array(exact)), rtol=1e-5, atol=1e-5)


def test_bicubic_shrinking_is_pillows_and_linear():
    y = LowResolution(factor=4, shrink="bicubic").observe(IMAGES)
    for row, small in zip(IMAGES.flatten(0, 1), y.flatten(0, 1), strict=True):
        exact = Image.fromarray(row.numpy()).resize((2, 2), Image.Resampling.BICUBIC)
        assert_close(small, torch.from_numpy(np.array(exact)), rtol=1e-5, atol=1e-5)
    x, v, operator = IMAGES.double(), torch.randn(5, 3, 2, 2).double(), BicubicDownsample(4)
    assert_close((operator.forward(x) * v).sum(), (x * adjoint(operator, v, x)).sum())


def test_a_gray_picture_is_the_mean_of_the_channels():
    c = Grayscale()
    assert torch.equal(c.present(c.observe(IMAGES)), Gray().forward(IMAGES))
    assert c.channels(3) == 1


def test_a_paired_picture_is_itself():
    assert Paired().present(Paired().observe(IMAGES)) is IMAGES
    assert Paired().channels(3) == 3
    assert Paired(picture_channels=5, drop=0.1).channels(3) == 6


def test_masked_pixels_are_zero_and_marked():
    y = Masked().observe(IMAGES)
    known = y[:, 3:]
    assert set(known.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(y[:, :3], IMAGES * known)
    assert Masked().channels(3) == Masked(drop=0.1).channels(3) == 4  # the mask tells a picture from none


@pytest.mark.parametrize(
    ("c", "mark"), [(LowResolution(drop=0.5, factor=2), 3), (Grayscale(drop=0.5), 1), (Paired(drop=0.5), 3)]
)
def test_zeros_are_a_picture_and_none_is_told_from_it_by_a_channel_of_ones(c, mark):
    gray = torch.zeros(2, 3, 8, 8)  # the middle of [-1, 1]
    given = Given(c, c.present(c.observe(gray)))
    assert given.picture.shape[1] == c.channels(3) == mark + 1
    assert torch.equal(given.picture[:, mark:], torch.ones(2, 1, 8, 8))
    one = given.without(torch.tensor([True, False])).picture
    assert not one[0].any()
    assert torch.equal(one[1], given.picture[1])


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shape", [(8, 8), (16, 24), (64, 64)])
def test_masks_paint_a_part_of_every_image(kind, shape):
    u = torch.rand(400, NUMBERS, generator=torch.Generator().manual_seed(1))
    masks = draw_masks(kind, *shape, u)
    assert masks.shape == (400, 1, *shape)
    share = masks.float().mean((1, 2, 3))
    assert share.min() > 0
    assert share.max() < 1
    assert torch.equal(masks[7:9], draw_masks(kind, *shape, u[7:9]))  # each by its own numbers
    if kind == "center":
        rows, columns = (n // 4 for n in shape)
        assert masks[0, 0, rows:-rows, columns:-columns].all()
        assert share[0] == 0.25
    if kind == "boxes" and shape == (64, 64):
        assert 0.1 < share.mean() < 0.3  # of 10 to 40 %, less where they overlap
        assert share.max() < 0.45


def test_most_mixed_masks_are_free_form_and_the_others_boxes():
    u = torch.rand(2000, NUMBERS)
    mixed, free, boxes = (draw_masks(kind, 16, 16, u).flatten(1) for kind in ("mixed", "free_form", "boxes"))
    is_free, is_boxes = ((mixed == other).all(1) for other in (free, boxes))
    assert (is_free | is_boxes).all()
    assert is_free.float().mean().item() == pytest.approx(0.6, abs=0.05)


def test_strokes_are_as_wide_as_their_brush():
    """Pixels whose centers are at most half a width from the path, for one straight stroke."""
    u = torch.zeros(1, NUMBERS)
    u[0, 2:4] = 0.5  # starts in the middle
    u[0, 4] = 1 - 2**-20  # the widest brush
    u[0, 6:11] = 0.5  # no turns
    u[0, 11:16] = 1.0  # the longest segments
    mask = draw_masks("free_form", 100, 100, u)[0, 0]
    rows, columns = mask.nonzero().unbind(1)
    assert columns.min() >= 43
    assert columns.max() == 99
    assert rows.max() - rows.min() + 1 == 12  # 0.12 of the side


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowResolution(factor=1), "factor must be 2 or more, got 1"),
        (lambda: LowResolution(shrink="nearest"), "shrink must be mean or bicubic"),
        (lambda: LowResolution(factor=3).check((1, 9, 8)), "must divide the sides of the images, 9 x 8, got 3"),
        (lambda: Grayscale().check((1, 8, 8)), "no colors to find"),
        (lambda: Grayscale(drop=1.0), "between 0 and 1, 1 excluded, got 1"),
        (lambda: Paired(picture_channels=0), "must be positive"),
        (lambda: LowResolution(shrink="bicubic").measurement(IMAGES), "train with condition.shrink=mean"),
        (lambda: Paired().measurement(IMAGES), "no part of them"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("c", [LowResolution(factor=2), Grayscale(), Masked()], ids=["upsample", "colorize", "inpaint"])
def test_what_is_observed_is_a_part_that_can_be_kept_exactly(c):
    y = c.observe(IMAGES.double())
    measurement, x = c.measurement(y), torch.randn(5, 3, 8, 8).double()
    p = measurement.project
    assert_close(p(p(x)), p(x))
    assert_close(measurement.y.expand_as(x), p(IMAGES.double()))
    assert_close(measurement.impose(IMAGES.double()), IMAGES.double())
    if c.operator is not None:
        assert_close(c.operator.forward(measurement.impose(x)), y)


NETS = {
    "light": lambda k: LightUNet(8, 1, (8, 8), patch=2, condition_channels=k),
    "unet": lambda k: UNet(8, 1, 32, (1, 1), 1, (), condition_channels=k),
    "ncsnpp": lambda k: NCSNpp(8, 1, 16, (1, 1), 1, (), condition_channels=k),
    "unit": lambda k: NCSNpp(8, 1, 16, (1, 1), 1, (), unit_range=True, pyramid_in="skip", condition_channels=k),
    "refinenet": lambda k: RefineNet(1, 8, 10, (1, 1), (1, 1), condition_channels=k),
}


def randomized(net):
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return net


@pytest.mark.parametrize("name", NETS)
def test_networks_see_the_picture_and_return_images(name):
    schedule, conditioning = (geometric(0.01, 1, 10), "level") if name == "refinenet" else (DDPM, "time")
    model = ScoreModel(randomized(NETS[name](2)), schedule, conditioning=conditioning)
    x, picture, t = torch.randn(3, 1, 8, 8), torch.randn(3, 2, 8, 8), torch.tensor(3)
    assert model.condition_channels == 2
    shown = model(x, t, condition=picture).eps
    assert shown.shape == x.shape
    changed = picture.clone()
    changed[1, 1, 4, 4] += 1
    moved = (model(x, t, condition=changed).eps - shown).abs().flatten(1).amax(1)
    assert moved[1] > 1e-4
    assert moved[0] == moved[2] == 0
    assert_close(model(x, t).eps, model(x, t, condition=torch.zeros_like(picture)).eps)


def test_a_picture_is_not_scaled_where_x_t_is():
    """EDM's c_in (Karras et al. 2022, Eq. 7) multiplies x_t alone."""
    seen = []

    class Net(nn.Module):
        condition_channels = 1

        def forward(self, x, c):  # noqa: ARG002
            seen.append(x)
            return x[:, :1]

    model = ScoreModel(Net(), VP(), "edm", "edm", sigma_data=0.5)
    x, picture = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    model(x, torch.tensor(0.5), condition=picture)
    assert torch.equal(seen[0][:, 1:], picture)
    assert not torch.allclose(seen[0][:, :1], x)


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (2, 2, 8, 8), (3, 2, 4, 4)])
def test_a_picture_of_another_shape_is_refused(shape):
    model = ScoreModel(NETS["light"](2), DDPM)
    with pytest.raises(ValueError, match=r"takes conditions of shape \(3, 2, 8, 8\), got"):
        model(torch.randn(3, 1, 8, 8), torch.tensor(3), condition=torch.zeros(shape))


def test_a_model_without_a_condition_refuses_one():
    with pytest.raises(ValueError, match=r"takes conditions of shape \(3, 0, 8, 8\)"):
        ScoreModel(NETS["light"](0), DDPM)(torch.randn(3, 1, 8, 8), torch.tensor(3), condition=torch.zeros(3, 1, 8, 8))


def test_an_energy_is_of_the_image_alone():
    model = ScoreModel(randomized(NETS["light"](1)), DDPM, "energy").double()
    x, picture, t = torch.randn(2, 1, 8, 8).double(), torch.randn(2, 1, 8, 8).double(), torch.tensor([3, 3])
    score = model(x, t, condition=picture).score
    step = torch.zeros_like(x)
    step[0, 0, 2, 3] = 1e-5
    c = t.double()
    f = [model.net.energy(torch.cat([x + sign * step, picture], 1), c)[0].item() for sign in (1, -1)]
    assert score.shape == x.shape
    assert score[0, 0, 2, 3].item() == pytest.approx(-(f[0] - f[1]) / 2e-5, rel=1e-5)


class Joint(nn.Module):
    """The exact network of pairs (x_0, y) of one Gaussian: eps of x_t given y, which comes as a picture.

    x_0 given y is N(gain y, covariance), so that x_t - alpha gain y is data of mean 0 with noise.
    """

    def __init__(self, gain, covariance, schedule, marked=False, prior=None):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()).double())
        self.gain, self.schedule, self.marked, self.prior = gain, schedule, marked, prior
        self.exact = GaussianModel(torch.zeros(len(gain)).to(gain), covariance, schedule)
        self.condition_channels = 1 + marked

    def forward(self, x, c):
        t = c.long() if self.schedule.levels else c / 999
        x, given = x.flatten(2).split([1, self.condition_channels], 1)
        alpha = self.schedule(t)[0].to(x).view(-1, 1)
        eps = self.exact(x[:, 0] - alpha * (given[:, 0] @ self.gain.mT), t).eps
        if self.marked:
            eps = torch.where(given[:, 1, :1] > 0, eps, self.prior(x[:, 0], t).eps)
        return eps.view(-1, 1, 4, 4)


def gaussian_pair(schedule, marked=False):
    """(covariance of 4 x 4 images, that of x_0 given means of 2 x 2 pixels, gain, the model)."""
    place = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1).view(16, 2).double()
    covariance = 0.3 * torch.exp(-torch.cdist(place, place) / 2)
    eye = torch.eye(16).double().view(16, 1, 4, 4)
    see = Downsample(2).forward(eye).flatten(1).mT  # (4, 16)
    gain = covariance @ see.mT @ torch.linalg.inv(see @ covariance @ see.mT)
    rest = covariance - gain @ see @ covariance
    spread = LowResolution(factor=2).present(torch.eye(4).double().view(4, 1, 2, 2)).flatten(1).mT  # (16, 4)
    shown = gain @ torch.linalg.pinv(spread)  # of the picture as it is presented
    prior = GaussianModel(torch.zeros(16).double(), covariance, schedule)
    return covariance, rest, gain, ScoreModel(Joint(shown, rest, schedule, marked, prior), schedule)


def given_of(small, n, drop=0.0):
    c = LowResolution(factor=2, drop=drop)
    return Given(c, c.present(small.expand(n, -1, -1, -1)))


SMALL = torch.tensor([[0.5, -0.3], [0.1, 0.8]]).double().view(1, 1, 2, 2)


def test_the_generator_draws_the_exact_conditional_distribution():
    """Mean gain y and covariance of x_0 given y, of Gaussian images with correlated pixels."""
    _, rest, gain, model = gaussian_pair(DDPM)
    n = 4000
    conditioned = PictureConditioned(model, given_of(SMALL, n))
    x = DDPM.prior((n, 1, 4, 4), dtype=torch.float64)
    drawn = Sampler(Ancestral("small"), steps=200)(conditioned, x).detach().view(n, 16)
    mean = (gain @ SMALL.view(4)).view(16)
    assert_close(drawn.mean(0), mean, rtol=0, atol=4 * (rest.diagonal().max() / n).sqrt().item() + 0.01)
    assert_close(drawn.T.cov(), rest, rtol=0, atol=0.015)
    assert Downsample(2).forward(drawn.view(n, 1, 4, 4)).sub(SMALL).abs().max() < 0.02  # nothing of y is lost


def test_denoising_with_the_picture_is_least_at_the_conditional_score():
    """The loss of the exact conditional model against the variance that is left, and against worse models."""
    covariance, rest, _, model = gaussian_pair(DDPM)
    n, t = 20_000, torch.tensor(300)
    x_0 = torch.distributions.MultivariateNormal(torch.zeros(16).double(), covariance).sample((n,)).view(n, 1, 4, 4)
    c = LowResolution(factor=2)
    given = Given(c, c.present(c.observe(x_0)))
    alpha, sigma = DDPM(t)
    variances = torch.linalg.eigvalsh(rest)
    least = (alpha**2 * variances / (alpha**2 * variances + sigma**2)).mean().item()
    loss = Denoising()(PictureConditioned(model, given), x_0, t).detach()
    assert loss.mean().item() == pytest.approx(least, abs=4 * loss.std().item() / math.sqrt(n))
    for other in (Given(c, given.picture.roll(1, 0)), Given(c, 0.9 * given.picture)):
        assert Denoising()(PictureConditioned(model, other), x_0, t).mean().item() > least + 1e-4


def test_the_likelihood_given_the_picture_is_exact():
    """Of data that have the noise of t_min, in the directions that y leaves open and in those that it fixes."""
    schedule = VP()
    _, rest, gain, model = gaussian_pair(schedule)
    n = 3
    alpha, sigma = schedule(schedule.t_min)
    wide = rest + 1e-3 * torch.eye(16).double()
    model.net.exact = GaussianModel(torch.zeros(16).double(), wide, schedule)
    mean = alpha * (gain @ SMALL.view(4)).view(16)
    noisy = torch.distributions.MultivariateNormal(mean, alpha**2 * wide + sigma**2 * torch.eye(16).double())
    x = noisy.sample((n,))
    bits = bits_per_dim(PictureConditioned(model, given_of(SMALL, n)), x.view(n, 1, 4, 4), "exact")
    # the flow ends in N(0, sigma^2 I), its own path at alpha mean, where alpha is 0.0066
    assert_close(bits, -noisy.log_prob(x) / (16 * math.log(2)), rtol=0, atol=3e-3)
    elsewhere = bits_per_dim(PictureConditioned(model, given_of(-SMALL, n)), x.view(n, 1, 4, 4), "exact")
    assert (elsewhere - bits).min() > 1


@pytest.mark.parametrize("w", [0.0, 0.7, -1.0])
def test_guidance_exaggerates_what_the_picture_says(w):
    covariance, rest, gain, model = gaussian_pair(DDPM, marked=True)
    x, t = torch.randn(3, 1, 4, 4).double(), torch.tensor(200)
    guided = PictureConditioned(model, given_of(SMALL, 3, drop=0.1), Strength(w))(x, t)
    alpha, _ = DDPM(t)
    plain = GaussianModel(torch.zeros(16).double(), covariance, DDPM)(x.view(3, 16), t).eps
    shifted = x.view(3, 16) - alpha * (gain @ SMALL.view(4)).view(16)
    conditional = GaussianModel(torch.zeros(16).double(), rest, DDPM)(shifted, t).eps
    assert_close(guided.eps.detach().view(3, 16), (1 + w) * conditional - w * plain)


def test_in_an_interval_of_guidance_the_network_is_asked_twice():
    _, _, _, model = gaussian_pair(DDPM, marked=True)
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(None))
    strength = Strength(1.0, 0.0, DDPM.ratio(torch.tensor(200)).item())
    guided = PictureConditioned(model, given_of(SMALL, 2, drop=0.1), strength)
    for t, expected in ((100, 2), (300, 3)):
        guided(torch.randn(2, 1, 4, 4).double(), torch.tensor(t))
        assert len(calls) == expected


class Recorder(nn.Module):
    """A network that notes what it is given."""

    condition_channels, classes = 1, 3

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, c, labels=None, augmentation=None):  # noqa: ARG002
        self.seen.append((x[:, 1:], None if labels is None else labels.tolist(), augmentation))
        return x[:, :1]


def test_labels_augmentations_and_pictures_are_given_together():
    net = Recorder()
    model, picture, augmentation = ScoreModel(net, DDPM), torch.randn(2, 1, 4, 4), torch.randn(2, 9)
    given = Given(Paired(), picture)
    condition(model, torch.tensor([2, 0]), augmentation, given)(torch.randn(2, 1, 4, 4), torch.tensor(3))
    assert torch.equal(net.seen[0][0], picture)
    assert net.seen[0][1] == [2, 0]
    assert net.seen[0][2] is augmentation


def test_guidance_by_the_picture_leaves_out_the_label_and_that_by_the_label_keeps_the_picture():
    net = Recorder()
    given, labels = Given(Paired(), torch.ones(2, 1, 4, 4)), torch.tensor([2, 0])
    x, t, model = torch.randn(2, 1, 4, 4), torch.tensor(3), ScoreModel(net, DDPM)
    LabelConditioned(PictureConditioned(model, given, Strength(1.0)), labels)(x, t)
    assert [(bool(picture.any()), labels) for picture, labels, _ in net.seen] == [(True, [2, 0]), (False, None)]
    net.seen.clear()
    LabelConditioned(PictureConditioned(model, given), labels, Strength(1.0))(x, t)
    assert [(bool(picture.any()), labels) for picture, labels, _ in net.seen] == [(True, [2, 0]), (True, [-1, -1])]


def test_known_pixels_are_in_every_estimate_and_only_the_others_are_learned():
    model = ScoreModel(randomized(NETS["light"](2)), DDPM, "v")
    x_0 = IMAGES[:, :1]
    given = Given(Masked(), Masked().present(Masked().observe(x_0)))
    known = given.picture[:, 1:] > 0
    conditioned, t = PictureConditioned(model, given), torch.tensor([0, 10, 300, 900, 999])
    estimate = conditioned(torch.randn(5, 1, 8, 8), t)
    assert torch.equal(estimate.x_0[known], x_0[known])
    eps = torch.randn(5, 1, 8, 8)
    alpha, sigma = (a.float().view(-1, 1, 1, 1) for a in DDPM(t))
    plain = model(alpha * x_0 + sigma * eps, t, condition=given.picture).eps
    expected = torch.where(known, 0, plain - eps).square().flatten(1).mean(1)
    assert_close(Denoising()(conditioned, x_0, t, lambda _: eps), expected, rtol=2e-3, atol=1e-6)
    dropped = given.without(torch.ones(5, dtype=torch.bool))
    whole = (model(alpha * x_0 + sigma * eps, t).eps - eps).square().flatten(1).mean(1)
    assert_close(Denoising()(PictureConditioned(model, dropped), x_0, t, lambda _: eps), whole, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("predictor", [DDIM(), Ancestral()], ids=["ddim", "ancestral"])
def test_any_sampler_keeps_known_pixels_to_the_bit(predictor):
    model = ScoreModel(randomized(NETS["light"](2)), DDPM, "v")
    given = Given(Masked(), Masked().present(Masked().observe(IMAGES[:, :1])))
    known = given.picture[:, 1:] > 0
    drawn = Sampler(predictor, steps=5)(PictureConditioned(model, given), torch.randn(5, 1, 8, 8))
    assert torch.equal(drawn[known], IMAGES[:, :1][known])
    assert not torch.allclose(drawn[~known], IMAGES[:, :1][~known])


def test_pictures_follow_repeated_images_and_another_schedule():
    model = ScoreModel(NETS["light"](1), geometric(0.01, 1, 10), conditioning="log_sigma")
    given = Given(Paired(), IMAGES[:2, :1])
    outer = LabelConditioned(
        PictureConditioned(AugmentationConditioned(model, torch.zeros(2, 3)), given), torch.ones(2)
    )
    twin = outer.repeated(5, 4)
    assert torch.equal(twin.model._given.picture, IMAGES[[0, 1, 0, 1, 0], :1])
    assert outer.model._given.picture is given.picture
    limit = continuous(outer)
    assert limit.model.model.model.schedule.limit_of == 10
    assert model.schedule.levels == 10


def test_a_generator_without_pictures_is_that_of_none():
    """A model that was trained with dropped pictures draws without one, too."""
    model = ScoreModel(randomized(NETS["light"](2)), DDPM, "v")
    generator = Generator(Sampler(DDIM(), steps=3), (1, 8, 8), PixelRange())
    images = generator.batch(model, range(2), 0).images
    x = DDPM.prior((2, 1, 8, 8), ImageNoise(0, range(2)))
    assert torch.equal(images, PixelRange().decode(Sampler(DDIM(), steps=3)(model, x)))
