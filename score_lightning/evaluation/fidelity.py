"""How near images come to the truth that they are conditioned on, and how much they vary around it.

With x_s, s = 1 .. S, images of one condition from S seeds, m their mean and y the truth, all of D numbers,

    v = sum_s |x_s - m|^2 / (D (S - 1)),    e = |m - y|^2 / D - v / S

are unbiased: of the variance of images given the condition, and of the squared error of the mean of infinitely many. If
the images are drawn from the distribution of the truth given the condition, E[v] = E[e].
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from score_lightning.data.images import ImageSet
from score_lightning.data.pixels import Depth, Range
from score_lightning.errors import UserError
from score_lightning.evaluation.intervals import Subsamples, Values
from score_lightning.evaluation.metrics import OrderedRows
from score_lightning.generation.conditions import Conditions
from score_lightning.generation.store import Batch
from score_lightning.runtime.processes import Rank

LEAST = 6  # pixels of a side, so that a window of 11 sees it and its mirror image alone


class Fidelity:
    """Mean PSNR and SSIM of images against the truth, and how far they are from what was observed of it.

    That is `consistency`, the root of the mean squared difference between what is observed of an image and of its
    truth, in gray levels: (consistency / 255)^2 is the MSE of Saharia et al. 2022a, Table 1.

    Args:
        conditions: of the images, with truths.
        pixels: range of pixels in the model.
        rank: this process.

    Raises:
        UserError: when the truths are of another type of pixels than the images.
    """

    def __init__(self, conditions: Conditions, pixels: Range, rank: Rank) -> None:
        self.conditions, self._pixels, self._device = conditions, pixels, rank.device
        truths, self._span = _truths(conditions), pixels.depth.white - pixels.depth.black
        if truths.depth != pixels.depth:
            raise UserError(
                f"PSNR compares images of one range: the truths have pixels of {truths.depth}, the model's images of "
                f"{pixels.depth}"
            )
        self._small = min(truths.shape[1:]) < LEAST
        self._rows: dict[str, OrderedRows] = {}

    @property
    def unavailable(self) -> dict[str, str]:
        """Metrics that cannot be computed: name -> reason."""
        reason = f"its window of 11 x 11 pixels needs images of at least {LEAST} x {LEAST}"
        return {"ssim": reason} if self._small else {}

    def beside(self, n: int) -> tuple[Tensor, Tensor]:
        """What images 0 to n - 1 are given, and their truths, (n, C, H, W) each with its own C."""
        given, truths = self.conditions.shown(n, self._pixels), _truths(self.conditions)
        return given, truths[self.conditions.numbers(range(n))]

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches of this rank, which are compared on the way; a new comparison starts."""
        operator = self.conditions.condition.operator
        names = ["psnr", *([] if self._small else ["ssim"]), *([] if operator is None else ["consistency"])]
        self._rows = {name: _rows(self._device) for name in names}
        for batch in batches:
            numbers = self.conditions.numbers(batch.indices)
            images = batch.images.to(self._device)
            truth = _truths(self.conditions)[numbers].to(self._device)
            self._rows["psnr"].update(psnr(images.float(), truth.float(), self._pixels.depth), batch.indices)
            if not self._small:
                self._rows["ssim"].update(ssim(images.float(), truth.float(), self._span), batch.indices)
            if operator is not None:
                seen = operator.forward(self._pixels.encode(images))
                level = (self._pixels.high - self._pixels.low) / self._span
                distance = (seen - self.conditions.observe(numbers).to(seen)) / level
                self._rows["consistency"].update(distance.square().flatten(1).mean(1), batch.indices)
            yield batch

    def compute(self) -> Values:
        """Means over the images of all ranks, the same on every rank; every rank must call."""
        means, sizes = _means(self._rows, self.conditions)
        return Values.of(
            {name: value.sqrt() if name == "consistency" else value for name, value in means.items()}, sizes
        )


def spread(seeds: Sequence[Iterable[Batch]], conditions: Conditions, rank: Rank) -> Values:
    """How images of one condition vary from seed to seed; the same on every rank, and every rank must call.

    Args:
        seeds: batches of this rank's images, of two seeds or more, with the same indices of each.
        conditions: of the images, with truths.
        rank: this process.

    Returns:
        psnr_of_mean, the PSNR of the mean over seeds; diversity, the root of the mean v in gray levels; calibration,
        the mean v over the mean e, where that is positive.
    """
    rows = {name: _rows(rank.device) for name in ("v", "e", "psnr")}
    for batches in zip(*seeds, strict=True):
        images = torch.stack([batch.images for batch in batches]).to(rank.device)
        truth = _truths(conditions)[conditions.numbers(batches[0].indices)].to(rank.device)
        x, y = images.float(), truth.float()
        m = x.mean(0)
        v = (x - m).square().sum(0).flatten(1).mean(1) / (len(x) - 1)
        rows["v"].update(v, batches[0].indices)
        rows["e"].update((m - y).square().flatten(1).mean(1) - v / len(x), batches[0].indices)
        rows["psnr"].update(psnr(m, y, _truths(conditions).depth), batches[0].indices)
    means, sizes = _means(rows, conditions)
    values = {"psnr_of_mean": means["psnr"], "diversity": means["v"].sqrt()}
    return Values.of(values | ({"calibration": means["v"] / means["e"]} if means["e"][0] > 0 else {}), sizes)


def psnr(images: Tensor, truth: Tensor, depth: Depth) -> Tensor:
    """10 log10(range^2 / MSE) in decibels of images (B, C, H, W) as they are stored, one by one, (B,).

    An MSE below that of rounding to whole gray levels, 1/12, or of floats to their last digit, counts as that.
    """
    span = depth.white - depth.black
    level = span * torch.finfo(depth.dtype).eps if depth.levels is None else 1.0
    ratio = peak_signal_noise_ratio(images, truth, data_range=float(span), reduction="none", dim=(1, 2, 3))
    return ratio.clamp(max=10 * math.log10(12 * (span / level) ** 2))


def ssim(images: Tensor, truth: Tensor, span: float) -> Tensor:
    """The structural similarity of images (B, C, H, W) one by one, (B,) (Wang et al. 2004, Eq. 13).

    Its Gaussian window is 11 x 11 pixels around each pixel; images go on beyond their borders as in a mirror.
    """
    similarity = structural_similarity_index_measure(images, truth, data_range=float(span), reduction="none")
    assert isinstance(similarity, Tensor)
    return similarity.view(-1)


def _rows(device: torch.device | str) -> OrderedRows:
    return OrderedRows(torch.empty((), dtype=torch.float64)).to(device)


def _means(rows: dict[str, OrderedRows], conditions: Conditions) -> tuple[dict[str, Tensor], Tensor]:
    """The means of all subsamples, (1 + S,) each, and the subsamples' sizes."""
    values = {name: metric.compute() for name, metric in rows.items()}
    subsamples = Subsamples.of(len(next(iter(values.values()))), conditions.count)
    return {name: subsamples.means(numbers) for name, numbers in values.items()}, subsamples.sizes


def _truths(conditions: Conditions) -> ImageSet:
    assert conditions.truths is not None
    return conditions.truths
