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

from score_lightning.conditional import NO_GUIDANCE, Evidence, Guided, LabelConditioned, Strength, Wrapper
from score_lightning.data.pixels import Range
from score_lightning.errors import UserError
from score_lightning.generation.store import Batch, BatchStore
from score_lightning.models import Estimate, Model, ScoreModel
from score_lightning.runtime.processes import Rank
from score_lightning.runtime.randomness import ImageNoise, derive_seed
from score_lightning.samplers import PILOT, Sampler


def _joined(parts: list[Tensor]) -> Tensor:
    """Coefficients of parts of a batch, (), or (B, 1, ...) where they differ."""
    return parts[0] if parts[0].ndim == 0 else torch.cat(parts)


class _InParts(Wrapper[ScoreModel]):
    """A model that takes at most so many images at once."""

    def __init__(self, model: ScoreModel, size: int) -> None:
        super().__init__(model)
        self._size = size

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Estimate:
        """The estimate at times t of shape () or (B,)."""
        parts = [
            self.model(x_t[i], t if t.ndim == 0 else t[i], None if labels is None else labels[i])
            for i in torch.arange(len(x_t), device=x_t.device).split(self._size)
        ]
        fractions = [part.fraction for part in parts if part.fraction is not None]
        return replace(
            parts[0],
            x_t=x_t,
            alpha=_joined([part.alpha for part in parts]),
            sigma=_joined([part.sigma for part in parts]),
            output=torch.cat([part.output for part in parts]),
            fraction=torch.cat(fractions) if fractions else None,
        )


@dataclass(frozen=True)
class Generator:
    """Draws images from a model.

    Args:
        sampler: from noise to x_0.
        shape: (C, H, W) of an image, or (D,) of a point.
        pixels: range of pixels in the model.
        batch_size: images sampled at once.
        label: of all images, for a model conditioned on labels; image i has label i modulo their number when None.
        guidance: by labels, see `LabelConditioned`.
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
        x = x if self.measurement is None else self.measurement.impose(x)
        return Batch(torch.tensor(indices), self.pixels.decode(x), torch.isfinite(x).flatten(1).all(1).cpu())

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
        return x if self.measurement is None else self.measurement.perturb(x, *schedule(first), noise(x))

    def _conditioned(self, model: ScoreModel, indices: Sequence[int]) -> Model:
        """The model conditioned on the labels of these images and on the measurement."""
        conditioned = self._labeled(model, indices, self.guidance)
        if self.guide is not None:
            guide = self.guide.to(next(model.parameters()).device)
            conditioned = Guided(conditioned, self._labeled(guide, indices), self.autoguidance)
        return conditioned if self.measurement is None else self.measurement.wrap(conditioned)

    def _labeled(self, model: ScoreModel, indices: Sequence[int], guidance: Strength = NO_GUIDANCE) -> Model:
        """The model conditioned on the labels of these images."""
        parts = _InParts(model, self.batch_size) if len(indices) > self.batch_size else model
        if not model.classes:
            return parts
        labels = [i % model.classes if self.label is None else self.label for i in indices]
        return LabelConditioned(parts, torch.tensor(labels, device=next(model.parameters()).device), guidance)

    def evaluations(self, model: ScoreModel, tried: int = 4) -> int:
        """Network evaluations per image; where they depend on the image, the most among the first `tried` images.

        Those of a guide count, those of a pilot run do not.
        """
        expected, guided = self.sampler.evaluations(model.schedule), self.guidance if model.classes else NO_GUIDANCE
        strengths = [strength for strength in (guided, self.autoguidance) if strength.weight]
        if expected is not None and all(strength.everywhere for strength in strengths):
            return expected * (1 + len(strengths))
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


def trajectory(generator: Generator, model: ScoreModel, n: int, seed: int, snapshots: int = 10) -> Tensor:
    """uint8 (n, snapshots, C, H, W): images 0 .. n - 1 on their way from noise; the last snapshot is the result.

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
