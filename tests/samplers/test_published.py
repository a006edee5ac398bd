"""The samplers of all published recipes against recursions written from the papers and their code.

The data are Gaussian with a covariance like that of images: all samplers are affine there, so that each dimension has a
mean, a variance and a slope (what is left of the start) that follow from a recursion in one dimension.
"""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from support import LIGHT, slow_but

from score_lightning import config
from score_lightning.experiment.build import Experiment
from score_lightning.models import GaussianModel

DIM, MEAN = 3072, 0.25
VARIANCES = 1 / np.arange(1, DIM + 1)
VARIANCES *= 0.25 / VARIANCES.mean()


class Chain:
    """x in every dimension: its mean, its variance and its slope with respect to the start."""

    def __init__(self, mean, variance):
        self.mean, self.variance, self.slope = mean + 0 * VARIANCES, variance + 0 * VARIANCES, 1 + 0 * VARIANCES

    def move(self, factor, offset, noise=0.0):
        """x <- factor x + offset + sqrt(noise) z."""
        self.mean, self.slope = factor * self.mean + offset, factor * self.slope
        self.variance = factor**2 * self.variance + noise

    def along_score(self, step, alpha, sigma, noise=0.0, scale=1.0):
        """x <- scale x + step score + sqrt(noise) z, with the score of the data at this noise."""
        total = alpha**2 * VARIANCES + sigma**2
        self.move(scale - step / total, step * alpha * MEAN / total, noise)

    def score_norm(self, alpha, sigma):
        """The norm of the score that x has on average; with so many dimensions its spread does not matter."""
        total = alpha**2 * VARIANCES + sigma**2
        return math.sqrt((((self.mean - alpha * MEAN) ** 2 + self.variance) / total**2).sum())


def annealed_langevin(low, high, levels, step, steps, denoise):
    """Song & Ermon 2019, Algorithm 1, with their code's step_lr; the start is U[0, 1]."""
    sigmas = np.geomspace(high, low, levels)
    x = Chain(0.5, 1 / 12)
    for sigma in sigmas:
        for _ in range(steps):
            delta = step * (sigma / low) ** 2
            x.along_score(delta, 1, sigma, 2 * delta)
    if denoise:
        x.along_score(low**2, 1, low)
    return x


def ve(low, high, n, snr, end=1e-5):
    """Song et al. 2021a, Algorithm 2 with the corrector of Algorithm 4."""
    sigmas = low * (high / low) ** np.linspace(1, end, n)
    x = Chain(0, high**2)
    for sigma, lower in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        delta = 2 * (snr * math.sqrt(DIM) / x.score_norm(1, sigma)) ** 2
        x.along_score(delta, 1, sigma, 2 * delta)
        x.along_score(sigma**2 - lower**2, 1, sigma, (sigma**2 - lower**2) * (lower > 0))
    return x


def vp(sub=False, n=1000, end=1e-3):
    """Song et al. 2021a, Euler-Maruyama on the reverse of the (sub-)VP SDE, to 1e-3; the last step has no noise."""
    x = Chain(0, 1)
    for i, t in enumerate(np.linspace(1, end, n)):
        beta, integral = 0.1 + 19.9 * t, 0.1 * t + 19.9 * t**2 / 2
        sigma2 = -math.expm1(-integral)
        g2 = beta * -math.expm1(-2 * integral) if sub else beta
        sigma = sigma2 if sub else math.sqrt(sigma2)
        x.along_score(g2 / n, math.exp(-integral / 2), sigma, g2 / n * (i < n - 1), 1 + beta / (2 * n))
    return x


def ddpm(betas, variance="large", reverse=False):
    """Ho et al. 2020, Algorithm 2, or reverse diffusion (Song et al. 2021a, Eq. 46), which ends with denoising here."""
    alpha2 = np.cumprod(1 - betas)
    x = Chain(0, 1 - alpha2[-1])
    for i in reversed(range(len(betas))):
        beta, alpha, sigma2 = betas[i], math.sqrt(alpha2[i]), 1 - alpha2[i]
        small = beta * (1 - alpha2[i - 1]) / sigma2 if i else 0.0
        noise = {"large": beta, "small": small, "learned": small**0.7 * beta**0.3}[variance] * (i > 0)
        if reverse and i:
            x.along_score(beta, alpha, math.sqrt(sigma2), noise, 2 - math.sqrt(1 - beta))
        else:
            x.along_score(beta / math.sqrt(1 - beta), alpha, math.sqrt(sigma2), noise, 1 / math.sqrt(1 - beta))
    return x


def spaced(betas, steps):
    """Those of a chain that visits fewer levels, at equal distances (Saharia et al. 2022a, Sec. 2.4, Algorithm 2)."""
    levels = np.linspace(0, len(betas) - 1, steps)
    alpha2 = np.exp(np.interp(levels, np.arange(len(betas)), np.log(np.cumprod(1 - betas))))
    return 1 - alpha2 / np.append(1, alpha2[:-1])


def cosine(levels):
    f = np.cos((np.arange(levels + 1) / levels + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def thinned(betas, steps):
    """Nichol & Dhariwal 2021, Sec. 4: those of fewer levels with the same noise."""
    alpha2 = np.cumprod(1 - betas)[np.linspace(0, len(betas) - 1, steps).round().astype(int)]
    return 1 - alpha2 / np.array([1, *alpha2[:-1]])


def edm(steps=18, low=0.002, high=80.0, rho=7, churn=0.0, churned=(0, math.inf), noise=1.0):
    """Karras et al. 2022, Algorithm 2, which without churn is Algorithm 1."""
    times = [*(np.linspace(high ** (1 / rho), low ** (1 / rho), steps) ** rho), 0.0]
    x = Chain(0, high**2)
    for t, s in pairwise(times):
        if churned[0] <= t <= churned[1]:
            t_hat = t + min(churn / steps, math.sqrt(2) - 1) * t
            x.move(1, 0, noise**2 * (t_hat**2 - t**2))
            t = t_hat
        rate_t, rate_s = t / (VARIANCES + t**2), s / (VARIANCES + s**2)  # d x / d t = rate (x - MEAN)
        euler = 1 + (s - t) * rate_t
        factor = 1 + (s - t) * (rate_t + rate_s * euler) / 2 if s else euler
        x.move(factor, (1 - factor) * MEAN)
    return x


THINNED = 200  # steps instead of 2000, where only the largest noise differs from a recipe that is checked with all
LINEAR = np.linspace(1e-4, 0.02, 1000)
PUBLISHED = {
    "ncsn_cifar": lambda: annealed_langevin(0.01, 1, 10, 2e-5, 100, False),
    "ncsnv2_cifar": lambda: annealed_langevin(0.01, 50, 232, 6.2e-6, 5, True),
    "ncsnv2_celeba": lambda: annealed_langevin(0.01, 90, 500, 3.3e-6, 5, True),
    "ncsnv2_church": lambda: annealed_langevin(0.01, 140, 788, 4.9e-6, 4, True),
    "ncsnv2_bedroom": lambda: annealed_langevin(0.01, 190, 1086, 1.8e-6, 3, True),
    "ncsnv2_ffhq": lambda: annealed_langevin(0.01, 348, 2311, 9e-7, 3, True),
    "ddpm_cifar": lambda: ddpm(LINEAR),
    "ddpm_bedroom": lambda: ddpm(LINEAR, "small"),
    "iddpm_cifar": lambda: ddpm(cosine(4000), "learned"),
    "sr3_ffhq": lambda: ddpm(spaced(np.linspace(1e-6, 1e-2, 2000), 100)),
    "ncsnpp_vp_cifar": lambda: ddpm(LINEAR, reverse=True),
    "ddpm_vp_cifar_continuous": vp,
    "ddpm_subvp_cifar_continuous": lambda: vp(sub=True),
    "ncsnpp_ve_cifar": lambda: ve(0.01, 50, 1000, 0.16, 0),
    "ncsnpp_ve_cifar_continuous": lambda: ve(0.01, 50, 1000, 0.16),
    "ncsnpp_ve_celebahq": lambda: ve(0.01, 348, 2000, 0.075),
    "ncsnpp_ve_bedroom": lambda: ve(0.01, 378, THINNED, 0.075),
    "ncsnpp_ve_church": lambda: ve(0.01, 380, THINNED, 0.075),
    "edm_cifar": edm,
    "edm_ffhq": lambda: edm(40),
    "edm_imagenet64": lambda: edm(256, churn=40, churned=(0.05, 50), noise=1.003),
    "adm_imagenet64": lambda: ddpm(thinned(cosine(1000), 250), "learned"),
    "adm_imagenet128": lambda: ddpm(thinned(LINEAR, 250), "learned"),
}
"""One recipe for each sampler -> what it does, from the paper."""


class WithFraction:
    """The model of a network that has learned variances, at 0.3 between the two."""

    def __init__(self, model):
        self._model, self.schedule = model, model.schedule

    def __call__(self, x, t):
        return replace(self._model(x, t), fraction=torch.full_like(x, 0.3))


def sampling(name):
    """The parts of a recipe that say how it samples, but for clipping."""
    resolved = config.load([], name).plain()
    return resolved["schedule"], {**resolved["sampler"], "clip": None}


def test_every_published_recipe_samples_like_one_of_those_that_are_checked():
    recipes = [path.stem for path in (config.ROOT / "experiments").glob("*.yaml")]
    own = {*LIGHT, "flow_cifar"}
    recipes = [name for name in recipes if not name.startswith("toy_") and "digits" not in name and name not in own]
    checked = [sampling(name) for name in PUBLISHED]
    assert len(recipes) > 40
    assert [name for name in recipes if sampling(name) not in checked] == []


QUICK_ONES = {"ddpm_cifar", "sr3_ffhq", "ddpm_vp_cifar_continuous", "ncsnpp_ve_bedroom", "edm_cifar"}


@pytest.mark.parametrize("name", slow_but(QUICK_ONES, sorted(PUBLISHED)))
def test_recipes_sample_as_their_papers_do(name):
    n, expected = 12, PUBLISHED[name]()
    thinned = name in ("ncsnpp_ve_bedroom", "ncsnpp_ve_church")
    experiment = Experiment(config.load([f"sampler.steps={THINNED}"] if thinned else [], name))
    sampler, schedule = replace(experiment.sampler, clip=None), experiment.schedule
    model = GaussianModel(torch.full((DIM,), MEAN).double(), torch.from_numpy(VARIANCES), schedule)
    model = WithFraction(model) if name.startswith(("iddpm", "adm")) else model
    x = schedule.prior((n, DIM), dtype=torch.float64)
    x[-1] = x[0] + 1  # with the same noise: what is left of the difference is the slope

    def randn_like(x):
        z = torch.randn_like(x)
        z[-1] = z[0]
        return z

    drawn = sampler(model, x, randn_like).numpy()
    slope, drawn = drawn[-1] - drawn[0], drawn[:-1]
    assert np.allclose(slope, expected.slope, rtol=0.05 if "_ve_" in name else 0.005, atol=1e-9)
    deviation = (drawn.mean(0) - expected.mean) / np.sqrt(expected.variance / len(drawn))
    assert np.square(deviation).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / DIM))
    for some in (slice(None), slice(DIM // 2, None), slice(30)):
        ratio = drawn.var(0, ddof=1)[some] / expected.variance[some]
        assert ratio.mean() == pytest.approx(1, abs=4 * math.sqrt(2 / (len(drawn) - 1) / ratio.size) + 0.005)
