"""Batches whose images are functions of (seed, step), for any number of processes.

A batch is a dict of `images` (B, C, H, W) as they are stored, `labels` (B,) and `conditions` (B, K, H, W) if there are
any, `numbers` (B,) of the images, and `step`, its place in the run. Flips and scaling happen later, on whole batches on
the model's device.
"""

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from score_lightning.data.images import ImageSet
from score_lightning.data.loader import Loader
from score_lightning.data.orders import TrainingOrder, ValidationOrder
from score_lightning.errors import UserError


class Batches(Dataset[dict[str, Any]]):
    """Batches of an image set by the (step, numbers) of an order; numbers past the end wrap around."""

    def __init__(self, images: ImageSet) -> None:
        self._images = images

    def __getitem__(self, place: tuple[int, Tensor]) -> dict[str, Any]:
        step, numbers = place
        indices = numbers % len(self._images)
        labels = {} if self._images.labels is None else {"labels": self._images.labels[indices]}
        pictures = {"images": self._images, "conditions": self._images.conditions}
        try:
            given = {name: images[indices] for name, images in pictures.items() if images is not None}
            return {**given, **labels, "step": step, "numbers": numbers}
        except UserError as error:  # a worker that raised it would send a traceback, too
            return {"mistake": str(error)}


class ImageData(L.LightningDataModule):
    """Training and validation batches of one source.

    Args:
        train, validation: the images.
        batch_size: images per global batch.
        steps: training batches of the whole run.
        validation_n: number of validation triples; triple j takes image j modulo their number.
        seed: of the order.
        workers: processes that load batches; pays for images that do not fit in memory.
    """

    def __init__(
        self,
        train: ImageSet,
        validation: ImageSet,
        batch_size: int,
        steps: int,
        validation_n: int,
        seed: int,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self._batch_size, self._steps, self._validation_n, self._seed = batch_size, steps, validation_n, seed
        self._workers, self._start = workers, 0

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the step that the run starts or resumes at."""
        rank, ranks = self._place()
        order = TrainingOrder(len(self.train), self._batch_size, self._steps, self._seed, self._start, rank, ranks)
        return self._loader(self.train, order)

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the validation triples."""
        return self._loader(self.validation, ValidationOrder(self._validation_n, self._batch_size, *self._place()))

    def transfer_batch_to_device(
        self,
        batch: dict[str, Any],
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002 - Lightning's signature
    ) -> dict[str, Any]:
        """The batch, on a device.

        Raises:
            UserError: when a picture in it cannot be read.
        """
        if "mistake" in batch:
            raise UserError(batch["mistake"])
        return {
            k: v.to(device, non_blocking=device.type == "cuda") if isinstance(v, Tensor) else v
            for k, v in batch.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on."""
        assert self.trainer is not None
        # those that were processed: between steps the next one is ready already
        return {"batches": self.trainer.fit_loop.epoch_loop.batch_progress.total.processed}  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues after the batches trained on."""
        self._start = state_dict["batches"]

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, images: ImageSet, order: Sampler[tuple[int, Tensor]]) -> DataLoader[Any]:
        pinned = torch.cuda.is_available()
        return Loader(
            Batches(images),
            batch_size=None,
            sampler=order,
            num_workers=self._workers,
            pin_memory=pinned,
            persistent_workers=self._workers > 0,
        )
