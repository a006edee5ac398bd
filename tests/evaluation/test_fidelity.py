"""Images against the truth that they are conditioned on."""

import math

import pytest
import torch

from score_lightning.conditional import Downsample, Grayscale, LowResolution, Masked, Paired
from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import Depth, PixelRange
from score_lightning.errors import UserError
from score_lightning.evaluation.fidelity import Fidelity, psnr, spread, ssim
from score_lightning.generation.conditions import of_images
from score_lightning.generation.store import Batch
from score_lightning.runtime.processes import Rank

TRUTHS = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batches(images, size=4):
    return [Batch(i, images[i], torch.ones(len(i), dtype=torch.bool)) for i in torch.arange(len(images)).split(size)]


def compared(images, condition, size=4):
    fidelity = Fidelity(of_images(condition, ImageSet(TRUTHS), PixelRange()), PixelRange(), Rank())
    assert torch.cat([batch.images for batch in fidelity.watch(batches(images, size))]).equal(images)
    return fidelity.compute().metrics


def test_psnr_is_the_mean_over_images_of_its_definition():
    images = (TRUTHS.int() + torch.arange(6).view(-1, 1, 1, 1) * 3 + 1).clamp(0, 255).byte()
    errors = (images.double() - TRUTHS.double()).square().mean((1, 2, 3))
    expected = (10 * torch.log10(255**2 / errors)).mean().item()
    for size in (1, 4, 6):
        assert compared(images, LowResolution(factor=2), size)["psnr"] == pytest.approx(expected, rel=1e-6)


def test_an_image_that_is_exact_has_the_psnr_of_rounding():
    exact = psnr(TRUTHS.float(), TRUTHS.float(), Depth())
    assert exact.tolist() == pytest.approx([10 * math.log10(12 * 255**2)] * 6)
    rounded = TRUTHS.float() + torch.rand(TRUTHS.shape) - 0.5
    assert psnr(rounded, TRUTHS.float(), Depth()).tolist() == pytest.approx(exact.tolist(), abs=0.3)


def test_psnr_does_not_depend_on_how_pixels_are_stored():
    shares = TRUTHS.float() / 255
    other = (shares + 0.01 * torch.randn(shares.shape)).clamp(0, 1)
    expected = psnr(255 * other, 255 * shares, Depth())
    for depth in (Depth(torch.uint16, 0, 65535), Depth(torch.float32, -2.0, 6.0), Depth(torch.float32, 0.0, 1.0)):
        span = depth.white - depth.black
        stored = (depth.black + span * images for images in (other, shares))
        torch.testing.assert_close(psnr(*stored, depth), expected, rtol=1e-4, atol=1e-3)
    exact = psnr(shares, shares, Depth(torch.float32, 0.0, 1.0))
    assert exact.isfinite().all()
    assert exact.min() > 120


def test_ssim_is_that_of_wang_et_al():
    """Eq. 13 with weights of a Gaussian of 1.5 pixels in 11 x 11, of images that are mirrored at their borders."""
    a, b = torch.rand(2, 1, 16, 16).double() * 255, torch.rand(2, 1, 16, 16).double() * 255
    line = torch.exp(-(torch.arange(-5, 6).double() ** 2) / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).view(1, 1, 11, 11)
    mirror = lambda x: torch.nn.functional.pad(x, (5, 5, 5, 5), mode="reflect")  # noqa: E731
    mean = lambda x: torch.nn.functional.conv2d(mirror(x), window)  # noqa: E731
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    va, vb, cov = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2, mean(a * b) - mean(a) * mean(b)
    value = (2 * mean(a) * mean(b) + c1) * (2 * cov + c2) / ((mean(a) ** 2 + mean(b) ** 2 + c1) * (va + vb + c2))
    assert ssim(a, b, 255).tolist() == pytest.approx(value.mean((1, 2, 3)).tolist(), rel=1e-5)
    assert ssim(a, a, 255).tolist() == pytest.approx([1, 1])


def test_consistency_is_in_gray_levels_of_what_is_observed():
    shifted = (TRUTHS.int() // 2 + 3).byte()
    for condition in (LowResolution(factor=4), LowResolution(factor=4, shrink="bicubic"), Grayscale()):
        see = condition.operator.forward
        expected = (see(shifted.double()) - see(TRUTHS.double())).square().mean().sqrt().item()
        assert compared(shifted, condition)["consistency"] == pytest.approx(expected, rel=1e-4)
    assert compared(TRUTHS, Grayscale())["consistency"] == pytest.approx(0, abs=1e-4)
    assert "consistency" not in compared(TRUTHS, Paired())


def test_images_beyond_the_truths_are_samples_of_the_first_conditions_again():
    twice = torch.cat([TRUTHS, TRUTHS, TRUTHS[:2]])
    assert compared(twice, LowResolution(factor=2))["consistency"] == pytest.approx(0, abs=1e-4)


def test_small_images_have_no_structural_similarity():
    small = TRUTHS[..., :4].contiguous()
    fidelity = Fidelity(of_images(LowResolution(factor=2), ImageSet(small), PixelRange()), PixelRange(), Rank())
    list(fidelity.watch(batches(small)))
    assert set(fidelity.compute().metrics) == {"psnr", "consistency"}
    assert "needs images of at least 6 x 6" in fidelity.unavailable["ssim"]
    assert Fidelity(of_images(Paired(), ImageSet(TRUTHS), PixelRange()), PixelRange(), Rank()).unavailable == {}


def test_truths_of_another_range_are_refused():
    truths = ImageSet(TRUTHS.to(torch.uint16), depth=Depth(torch.uint16, 0, 65535))
    with pytest.raises(UserError, match=r"the truths have pixels of 16 bits, the model's images of 8 bits"):
        Fidelity(of_images(Paired(), truths, PixelRange()), PixelRange(), Rank())


def test_spread_is_calibrated_where_samples_and_truths_are_of_one_distribution():
    """N(m, std^2) around a mean of each pixel, and samples of half and of twice that deviation."""
    n, seeds, std = 300, 4, 12.0
    mean = torch.rand(n, 1, 12, 12) * 100 + 80
    draw = lambda deviation: (mean + deviation * torch.randn(mean.shape)).round().byte()  # noqa: E731
    conditions = of_images(LowResolution(factor=2), ImageSet(draw(std)), PixelRange())
    for factor in (0.5, 1.0, 2.0):
        drawn = [batches(draw(factor * std), 128) for _ in range(seeds)]
        values = spread(drawn, conditions, Rank()).metrics
        assert values["diversity"] == pytest.approx(factor * std, rel=0.02)
        assert values["calibration"] == pytest.approx(factor**2, rel=0.04)
        error = std**2 * (1 + factor**2 / seeds)
        assert values["psnr_of_mean"] == pytest.approx(10 * math.log10(255**2 / error), abs=0.15)


def test_equal_samples_have_no_diversity_and_exact_ones_no_calibration():
    conditions = of_images(LowResolution(factor=2), ImageSet(TRUTHS), PixelRange())
    values = spread([batches(TRUTHS.flip(0)), batches(TRUTHS.flip(0))], conditions, Rank()).metrics
    assert (values["diversity"], values["calibration"]) == (0, 0)
    assert set(spread([batches(TRUTHS), batches(TRUTHS)], conditions, Rank()).metrics) == {"psnr_of_mean", "diversity"}


def test_what_is_observed_is_the_same_for_every_seed_and_batch():
    conditions = of_images(Masked(), ImageSet(TRUTHS), PixelRange())
    whole = conditions.observe(torch.arange(6))
    assert torch.equal(conditions.observe(torch.tensor([4, 1])), whole[[4, 1]])
    assert torch.equal(conditions.given([10, 1], torch.device("cpu")).picture, whole[[4, 1]])
    assert not torch.equal(whole[0, 3:], whole[1, 3:])
    low = of_images(LowResolution(factor=2), ImageSet(TRUTHS), PixelRange())
    assert torch.equal(low.observe(torch.arange(6)), Downsample(2).forward(PixelRange().encode(TRUTHS)))
    assert low.key == conditions.key != of_images(Masked(), ImageSet(TRUTHS[:5]), PixelRange()).key
