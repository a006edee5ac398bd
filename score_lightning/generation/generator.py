"""Generation: image i is a function of (seed, i), whichever process draws it.

Batch b always holds images bB to bB + B - 1, and the ranks take whole batches in turn. So with one batch size and one
number of threads per process, the images are the same to the bit for any number of processes.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from score_lightning.conditional import (
    NO_GUIDANCE,
    Evidence,
    Guided,
    LabelConditioned,
    PictureConditioned,
    Strength,
)
from score_lightning.data.pixels import Range
from score_lightning.errors import UserError
from score_lightning.generation.conditions import Conditions
from score_lightning.generation.parts import InParts
from score_lightning.generation.store import Batch, BatchStore
from score_lightning.models import Model, ScoreModel
from score_lightning.runtime.processes import Rank
from score_lightning.runtime.randomness import ImageNoise, derive_seed
from score_lightning.samplers import PILOT, Sampler

ALTERNATIONS = 50  # after which a square of 2 x 2 pixels, three of them white, has its mean to 1e-4 gray levels


@dataclass(frozen=True)
class Generator:
    """Draws images from a model.

    Args:
        sampler: from noise to x_0.
        shape: (C, H, W) of an image, or (D,) of a point.
        pixels: range of pixels in the model.
        batch_size: images sampled at once.
        label: of all images, for a model conditioned on labels; when None image i has that of its picture, or else
            i modulo their number.
        guidance: by labels, see `LabelConditioned`.
        conditions: the pictures that images are given, for a model conditioned on some; None for no picture.
        picture_guidance: by these, see `PictureConditioned`.
        guide: a worse model of the same data, from which samples are guided away, see `Guided`.
        autoguidance: by the guide.
        measurement: what images are drawn given, in the model's range.
        pilot_evaluations: network evaluations, over all images, of the pilot run that measured the sampler's steps.

    Raises:
        ValueError: when a measurement does not fit images of this shape.
    """

    sampler: Sampler
    shape: tuple[int, ...]
    pixels: Range
    batch_size: int = 256
    label: int | None = None
    guidance: Strength = NO_GUIDANCE
    conditions: Conditions | None = None
    picture_guidance: Strength = NO_GUIDANCE
    guide: ScoreModel | None = None
    autoguidance: Strength = NO_GUIDANCE
    measurement: Evidence | None = None
    pilot_evaluations: int = 0

    def __post_init__(self) -> None:
        if self.measurement is not None:
            self.measurement.check(self.shape)

    def batch(
        self,
        model: ScoreModel,
        indices: Sequence[int],
        seed: int,
        progress: bool = False,
        observe: Callable[[Tensor], None] | None = None,
    ) -> Batch:
        """The images with these indices; `observe` is called with each state of the sampler."""
        sampler = self.measured(model).sampler
        noise = ImageNoise(seed, indices)
        x = sampler(self._conditioned(model, indices), self._start(model, noise, indices), noise, progress, observe)
        evidence, finite = self._evidence(model, indices), torch.isfinite(x).flatten(1).all(1).cpu()
        x = x if evidence is None else _within(self.pixels, evidence, x)
        return Batch(torch.tensor(indices), self.pixels.decode(x), finite)

    def measured(self, model: ScoreModel, progress: bool = False) -> "Generator":
        """The same with a sampler whose steps, where they follow from scores, were measured on this model.

        The pilot run has images with seeds of their own, labels as of images 0, 1, ..., and the same measurement.
        """
        if not self.sampler.needs_pilot:
            return self
        noise, taken = ImageNoise(derive_seed("pilot"), range(PILOT)), [0]
        counter = model.register_forward_pre_hook(lambda _, args: taken.append(len(args[0])))
        try:
            start = self._start(model, noise, range(PILOT))
            sampler = self.sampler.measured(self._conditioned(model, range(PILOT)), start, noise, progress)
        finally:
            counter.remove()
        return replace(self, sampler=sampler, pilot_evaluations=sum(taken))

    def _start(self, model: ScoreModel, noise: ImageNoise, indices: Sequence[int]) -> Tensor:
        """Where sampling of these images starts, on the model's device."""
        schedule, device = model.schedule, next(model.parameters()).device
        first = self.sampler.times(schedule)[0]
        x = schedule.prior((len(indices), *self.shape), noise, first, device=device)
        evidence = self._evidence(model, indices)
        return x if evidence is None else evidence.perturb(x, *schedule(first), noise(x))

    def _evidence(self, model: ScoreModel, indices: Sequence[int]) -> Evidence | None:
        """The measurement, or what these images keep of their pictures."""
        if self.measurement is not None or self.conditions is None:
            return self.measurement
        return self.conditions.measurement(indices, next(model.parameters()).device)

    def _conditioned(self, model: ScoreModel, indices: Sequence[int]) -> Model:
        """The model conditioned on the labels and pictures of these images and on the measurement."""
        conditioned = self._given(model, indices, self.guidance, self.picture_guidance)
        if self.guide is not None:
            guide = self.guide.to(next(model.parameters()).device)
            conditioned = Guided(conditioned, self._given(guide, indices), self.autoguidance)
        evidence = self._evidence(model, indices)
        return conditioned if evidence is None else evidence.wrap(conditioned)

    def _given(
        self,
        model: ScoreModel,
        indices: Sequence[int],
        guidance: Strength = NO_GUIDANCE,
        picture_guidance: Strength = NO_GUIDANCE,
    ) -> Model:
        """The model conditioned on the labels and pictures of these images."""
        device = next(model.parameters()).device
        parts = InParts(model, self.batch_size) if len(indices) > self.batch_size else model
        given: ScoreModel | InParts | PictureConditioned = parts
        if self.conditions is not None:
            given = PictureConditioned(parts, self.conditions.given(indices, device), picture_guidance)
        if not model.classes:
            return given
        return LabelConditioned(given, self._labels(indices, model.classes).to(device), guidance)

    def _labels(self, indices: Sequence[int], classes: int) -> Tensor:
        """int64 (B,) of these images."""
        if self.label is not None:
            return torch.full((len(indices),), self.label)
        if self.conditions is not None and self.conditions.labels is not None:
            return self.conditions.labels[self.conditions.numbers(indices)]
        return torch.tensor(indices) % classes

    def evaluations(self, model: ScoreModel, tried: int = 4) -> int:
        """Network evaluations per image; where they depend on the image, the most among the first `tried` images.

        Those of a guide count, those of a pilot run do not.
        """
        expected, guided = self.sampler.evaluations(model.schedule), self.guidance if model.classes else NO_GUIDANCE
        strengths = [guided, self.picture_guidance, self.autoguidance]
        if expected is not None and all(strength.everywhere for strength in strengths if strength.weight):
            labels, pictures, guide = (bool(strength.weight) for strength in strengths)
            return expected * ((1 + labels) * (1 + pictures) + guide)
        calls: list[None] = []
        measured = self.measured(model)
        networks = [model] if self.guide is None else [model, self.guide]
        counters = [network.register_forward_pre_hook(lambda *_: calls.append(None)) for network in networks]
        measured.batch(model, range(tried), seed=0)
        for counter in counters:
            counter.remove()
        return len(calls)

    def __call__(
        self,
        model: ScoreModel,
        n: int,
        seed: int,
        rank: Rank = Rank(),  # noqa: B008 - immutable
        progress: bool = False,
        store: BatchStore | None = None,
    ) -> Iterator[Batch]:
        """This rank's batches of images 0 .. n - 1.

        Args:
            model: the score model.
            n: number of images, over all ranks.
            seed: of the images.
            rank: this process.
            progress: whether to show a progress bar of all ranks' images.
            store: batches that it has are not drawn again; the others are added to it.
        """
        batches: Sequence[Tensor] = torch.arange(n).split(self.batch_size)
        device = next(model.parameters()).device
        generator = self
        with tqdm(total=n, unit="image", desc="generating", disable=None if progress else True, leave=False) as bar:
            for first in range(0, len(batches), rank.count):
                if first + rank.number < len(batches):
                    indices = batches[first + rank.number]
                    batch = store.read(indices, device) if store else None
                    if batch is None:
                        generator = generator.measured(model, progress)
                        batch = generator.batch(model, indices.tolist(), seed, progress)
                        if store:
                            store.write(batch)
                    yield batch
                bar.update(sum(map(len, batches[first : first + rank.count])))


def _within(pixels: Range, evidence: Evidence, x: Tensor) -> Tensor:
    """x with what is known put in, and in the range of pixels, up to rounding, by alternating projections."""
    for _ in range(ALTERNATIONS):
        x = evidence.impose(evidence.impose(x).clamp(pixels.low, pixels.high))
    return x


def trajectory(generator: Generator, model: ScoreModel, n: int, seed: int, snapshots: int = 10) -> Tensor:
    """(n, snapshots, C, H, W): images 0 .. n - 1 on their way from noise; the last snapshot is the result.

    There are fewer snapshots where the sampler visits fewer times.
    """
    count = len(generator.sampler.times(model.schedule)) + 1
    chosen = set(torch.linspace(0, count - 1, min(snapshots, count)).round().int().tolist())
    states: list[Tensor] = []
    visits = itertools.count()

    def observe(x: Tensor) -> None:
        if next(visits) in chosen:
            states.append(generator.pixels.decode(x))

    generator.batch(model, range(n), seed, observe=observe)
    return torch.stack(states, 1).cpu()


def check_finite(indices: Sequence[int], n: int) -> None:
    """Refuses images with pixels that are not finite.

    Args:
        indices: of the images with such pixels.
        n: number of all images.

    Raises:
        UserError: with their number, when there are any.
    """
    if indices:
        raise UserError(
            f"{len(indices)} of {n} images have pixels that are not finite (NaN), image {min(indices)} the first. "
            "Take smaller steps of the sampler, or a checkpoint from before the training diverged"
        )
