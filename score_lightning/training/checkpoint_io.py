"""How checkpoint files are written: whole or not at all, and while the training continues."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from score_lightning.errors import UserError
from score_lightning.runtime.files import atomic_file, atomic_path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoint files whole or not at all.

    The newest step_*.ckpt is also last.ckpt; older ones are removed.

    Args:
        keep: number of step_*.ckpt to keep.
    """

    def __init__(self, keep: int = 1) -> None:
        self._keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Writes a checkpoint.

        Raises:
            UserError: when it cannot be written, on a full disk say; the file that was there stays.
        """
        path = Path(path)
        try:
            with atomic_file(path) as file:
                torch.save(checkpoint, file)
            if path.name.startswith("step_"):
                self._make_last(path)
        except (OSError, RuntimeError) as error:
            kept = f"; {path} is as it was" if path.exists() else ""
            # torch reports that the file is too short, and not why
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            raise UserError(f"the checkpoint {path} cannot be written: {str(cause).splitlines()[0]}{kept}") from error

    def _make_last(self, path: Path) -> None:
        _link(path, path.with_name("last.ckpt"))
        steps = sorted(path.parent.glob("step_*.ckpt"))
        number = steps.index(path) + 1
        # later ones could not be read when this run was resumed
        for other in [*steps[: max(0, number - self._keep)], *steps[number:]]:
            other.unlink()


class AsyncCheckpointWriter(AsyncCheckpointIO):
    """Writes checkpoints in the background; `teardown` waits for them and raises what failed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], *args: Any, **options: Any) -> None:
        """Starts to write one; the failure of an earlier one is left to `teardown`, which every process awaits."""
        # from a GPU's memory, of which there may be no more
        checkpoint = apply_to_collection(checkpoint, torch.Tensor, lambda tensor: tensor.cpu())
        with suppress(UserError):
            super().save_checkpoint(checkpoint, *args, **options)

    def teardown(self) -> None:
        """Waits, and raises what failed, once."""
        try:
            super().teardown()
        finally:
            self._error = None


def _link(path: Path, name: Path) -> None:
    """Gives a file a second name, or copies it where the file system knows no links; atomically."""
    with atomic_path(name) as partial:
        try:
            partial.hardlink_to(path)
        except OSError:
            partial.write_bytes(path.read_bytes())
