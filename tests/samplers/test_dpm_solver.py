"""DPM-Solver++ of all orders, deterministic and stochastic: identities, orders, moments, and diffusers' schedulers."""

from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from score_lightning.models import GaussianMixtureModel, GaussianModel
from score_lightning.samplers import DDIM, Ancestral, DPMSolverPP, sample
from score_lightning.schedules import EDM, VE, VP, linear_beta

DDPM = linear_beta(1e-4, 0.02, 1000)
MIXTURE = torch.tensor([[0.6], [-0.4]], dtype=torch.float64), 0.2, torch.tensor([1.0, 2.0], dtype=torch.float64)


def gaussian(mean, std, schedule):
    """The exact model of data N(mean, std^2) in one dimension."""
    return GaussianModel(*(torch.tensor([value], dtype=torch.float64) for value in (mean, std**2)), schedule)


def drawing(seed):
    """A source of normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


@pytest.mark.parametrize(("eta", "same"), [(0.0, DDIM()), (1.0, Ancestral("small"))])
@pytest.mark.parametrize("schedule", [VP(), EDM(), DDPM], ids=["vp", "edm", "ddpm"])
def test_the_first_order_is_ddim_or_ancestral(eta, same, schedule):
    model, x, times = gaussian(0.4, 0.3, schedule), torch.randn(5, 1).double(), schedule.times(9)
    ours, theirs = (sample(model, x, times, p, randn_like=drawing(0)) for p in (DPMSolverPP(1, eta), same))
    assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("schedule", [VP(t_min=0.05), VE(0.1, 5), EDM(0.1, 5)], ids=["vp", "ve", "edm"])
def test_each_order_is_reached_from_an_exact_history(schedule, order):
    """From the exact solution at the first `order` times; a start of lower order costs the third one."""
    model, first, errors = gaussian(0.3, 0.5, schedule), torch.tensor([[1.7]], dtype=torch.float64), []
    for steps in (160, 320, 640):
        times = schedule.times(steps + 1, "log_snr")
        y, n = first / schedule(times[0])[0], [schedule.ratio(t) for t in times]
        exact = [
            schedule(t)[0] * (0.3 + (y - 0.3) * torch.sqrt((0.25 + r**2) / (0.25 + n[0] ** 2)))
            for t, r in zip(times, n, strict=True)
        ]
        step, x = DPMSolverPP(order).start(times), first
        for i, (t, s) in enumerate(pairwise(times)):
            x = step(model, exact[i] if i < order else x, t, s, torch.randn_like)
        errors.append((x - exact[-1]).abs().item())
    assert (-torch.tensor(errors).log2().diff()).tolist() == pytest.approx([order, order], abs=0.2)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_moments_of_a_gaussian_are_drawn(order, eta):
    """All steps are affine in x and z, so that coefficients give the moments exactly: no sampling error."""
    schedule = EDM(0.002, 20)
    model, times, noise = gaussian(0.4, 0.3, schedule), schedule.times(300, "log_snr"), []
    # one row per source of randomness: row 0 the start, row k the noise of step k, the last one none of them
    rows = len(times) + 1
    x = torch.zeros(rows, 1, dtype=torch.float64)
    x[0] = 20
    step = DPMSolverPP(order, eta).start(times)
    for k, (t, s) in enumerate(pairwise(times), start=1):

        def one(x, k=k):
            noise.append(k)
            return torch.nn.functional.one_hot(torch.tensor(k), rows).to(x)[:, None]

        x = step(model, x, t, s, one)
    mean, parts = x[-1].item(), (x[:-1] - x[-1]).flatten()
    assert len(noise) == (len(times) - 1 if eta else 0)
    # the prior's variance of 400 is short of 0.09, and its mean of 0.4
    assert mean == pytest.approx(0.4, abs=0.01)
    assert parts.square().sum().sqrt().item() == pytest.approx(0.3, rel=0.02 if order == 1 else 2e-3)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("eta", [0, 1])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("levels", [DDPM, linear_beta(8e-4, 0.012, 1000)], ids=["ddpm", "less"])
def test_orders_one_and_two_equal_diffusers(levels, order, eta):
    """Its third order is the published formula, which `DPMSolverPP` says why it does not take."""
    diffusers = pytest.importorskip("diffusers")
    alpha, _ = levels(torch.arange(1000))
    betas = 1 - (alpha**2)[1:] / (alpha**2)[:-1]
    scheduler = diffusers.DPMSolverMultistepScheduler(
        trained_betas=torch.cat([1 - alpha[:1] ** 2, betas]).numpy(), solver_order=order, final_sigmas_type="sigma_min",
        algorithm_type="sde-dpmsolver++" if eta else "dpmsolver++", lower_order_final=False,
    )  # fmt: skip
    scheduler.set_timesteps(12)
    model, times = GaussianMixtureModel(*MIXTURE, levels), scheduler.timesteps
    x = theirs = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    step = DPMSolverPP(order, eta).start(times)
    for i, (t, s) in enumerate(pairwise(times)):
        z = drawing(i)(x)
        x = step(model, x, t, s, lambda _, z=z: z)
        theirs = scheduler.step(model(theirs, t).eps, t, theirs, variance_noise=z).prev_sample
    assert_close(x, theirs.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("order", "eta"), [(0, 0.0), (4, 0.0), (2, -0.1), (2, float("nan"))])
def test_what_makes_no_sense_is_refused(order, eta):
    with pytest.raises(ValueError, match="order of 1, 2 or 3 and eta >= 0"):
        DPMSolverPP(order, eta)
