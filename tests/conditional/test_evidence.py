"""Images that are drawn given something: a part, a noisy observation, or a picture to start from."""

import pytest
import torch
from torch.testing import assert_close

from score_lightning.conditional import (
    Edit,
    GaussianBlur,
    Gray,
    Mask,
    Measurement,
    MotionBlur,
    Observation,
    Posterior,
    inpainting,
)
from score_lightning.data.pixels import PixelRange
from score_lightning.generation.generator import Generator
from score_lightning.models import ScoreModel
from score_lightning.samplers import DDIM, Ancestral, Langevin, Sampler
from score_lightning.schedules import VP, linear_beta

IMAGE = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
KNOWN = torch.arange(64).view(8, 8) % 2 > 0
SHAPE = (3, 8, 8)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.8))

    def forward(self, x, c):  # noqa: ARG002
        return self.weight * x


def posterior(operator, noise=0.1, method="mmps", iterations=None, scale=1.0):
    return Posterior(Observation(operator, scale * operator.forward(IMAGE[None]), noise), method, iterations)


EVIDENCE = [
    inpainting(IMAGE, KNOWN), inpainting(IMAGE, ~KNOWN), inpainting(1 - IMAGE, KNOWN), Edit(IMAGE), Edit(1 - IMAGE),
    posterior(Mask(KNOWN)), posterior(Mask(~KNOWN)), posterior(Gray()), posterior(Gray(), scale=0.5),
    posterior(Gray(), 0.2), posterior(Gray(), method="pigdm"), posterior(Gray(), method="dps"),
    posterior(Gray(), iterations=3), posterior(GaussianBlur(0.5)), posterior(GaussianBlur(0.6)),
    posterior(MotionBlur(3, 10.0)), posterior(MotionBlur(3, 20.0)),
]  # fmt: skip


def test_other_evidence_has_another_fingerprint_and_the_same_the_same():
    prints = [b"".join(evidence.fingerprint(SHAPE)) for evidence in EVIDENCE]
    assert len(set(prints)) == len(EVIDENCE)
    assert b"".join(posterior(Mask(KNOWN.clone())).fingerprint(SHAPE)) == prints[5]


def test_two_operators_are_told_apart_by_what_they_make_and_not_by_y_alone():
    y = torch.zeros(1, 3, 8, 8)
    a, b = (Posterior(Observation(GaussianBlur(std), y, 0.1)).fingerprint(SHAPE) for std in (0.5, 0.6))
    assert a != b


@pytest.mark.parametrize("method", ["dps", "pigdm", "mmps"])
def test_images_given_an_observation_do_not_depend_on_batches(method):
    model = ScoreModel(Net(), VP())
    sampler = Sampler(Ancestral("small"), Langevin(snr=0.1), 4)
    whole, parts = (
        torch.cat(
            [
                b.images
                for b in Generator(sampler, SHAPE, PixelRange(), size, measurement=posterior(Gray(), method=method))(
                    model, 5, 0
                )
            ]
        )
        for size in (5, 2)
    )
    assert torch.equal(whole, parts)


def test_what_does_not_fit_the_images_is_refused_when_the_generator_is_built():
    for evidence, message in [
        (posterior(Mask(KNOWN)), r"images of shape \(3, 9, 9\)"),
        (posterior(GaussianBlur(0.5)), r"makes \(1, 3, 9, 9\) of images \(1, 3, 9, 9\), the observation has"),
        (Edit(IMAGE), r"has shape \(3, 8, 8\), the model's images \(3, 9, 9\)"),
        (inpainting(IMAGE, KNOWN), r"has shape \(3, 8, 8\), which does not fit images \(3, 9, 9\)"),
        (Measurement(lambda x: x, IMAGE[None].expand(2, -1, -1, -1)), "does not fit"),
    ]:
        with pytest.raises(ValueError, match=message):
            Generator(Sampler(DDIM()), (3, 9, 9), PixelRange(), measurement=evidence)


@pytest.mark.parametrize(("strength", "left"), [(1.0, 30), (0.5, 15), (0.1, 3), (0.11, 4), (0.01, 1)])
def test_a_sampler_visits_the_last_share_of_its_times(strength, left):
    schedule = linear_beta(1e-4, 0.02, 1000)
    sampler = Sampler(DDIM(), steps=30, strength=strength)
    assert torch.equal(sampler.times(schedule), schedule.times(30)[-left:])
    assert sampler.evaluations(schedule) == left


def test_a_sampler_without_times_is_refused():
    for strength in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most at 1, got"):
            Sampler(DDIM(), strength=strength)


def test_editing_starts_from_the_perturbed_picture():
    """Meng et al. 2022, Alg. 1."""
    model, states = ScoreModel(Net(), VP()), []
    generator = Generator(Sampler(DDIM(), steps=10, strength=0.3), SHAPE, PixelRange(), measurement=Edit(IMAGE))
    generator.batch(model, range(400), 0, observe=states.append)
    alpha, sigma = VP()(VP().times(10)[-3])
    assert len(states) == 4
    assert_close(states[0].mean(0), (alpha * IMAGE).float(), rtol=0, atol=5 * sigma.item() / 20)
    assert (states[0] - alpha * IMAGE).std().item() == pytest.approx(sigma.item(), rel=0.02)
