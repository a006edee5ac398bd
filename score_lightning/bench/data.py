"""Images per second and core: batches of uint8 images, in memory or decoded from files, flipped and scaled to float32.

All on one core. The peer does the same with torchvision's transforms, image by image, in torch's DataLoader.
"""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from score_lightning.bench.settings import OURS, Settings, noise_images
from score_lightning.bench.tables import Bound, Row, Table, rate
from score_lightning.bench.timing import Timing, alternate, one_core
from score_lightning.data.files import ImageFiles
from score_lightning.data.images import ImageSet, LazyImageSet
from score_lightning.data.listing import list_pictures
from score_lightning.data.module import ImageData
from score_lightning.data.pictures import Shape
from score_lightning.data.pixels import PixelRange
from score_lightning.runtime.randomness import BatchNoise
from score_lightning.training.module import Augmentation

BATCH = 128
AUGMENTATION = Augmentation(PixelRange(), flip=True)


def run(settings: Settings) -> list[Table]:
    """A table of images in memory, one of files."""
    n = BATCH if settings.quick else 40 * BATCH
    images = noise_images(n, (3, 32, 32))
    with one_core(), tempfile.TemporaryDirectory() as folder:
        files, names = _write(Path(folder), images[: n if settings.quick else 1024])
        memory = {"score_lightning": _ours(ImageSet(images)), "torchvision": _torchvision(_ArrayDataset(images))}
        disk = {
            "score_lightning: folder of PNGs": _ours(LazyImageSet(_files(files))),
            "score_lightning: zip of PNGs": _ours(LazyImageSet(_files(files.with_suffix(".zip")))),
            "torchvision: folder of PNGs": _torchvision(_FileDataset(files, names)),
        }
        return [
            _table("Images in memory, 32 x 32 x 3", memory, n, settings, 80_000),
            _table("Images decoded from files, 32 x 32 x 3", disk, len(names), settings),
        ]


def _table(
    title: str, functions: dict[str, Callable[[], None]], n: int, settings: Settings, least: float | None = None
) -> Table:
    def row(name: str, timing: Timing) -> Row:
        peer = not name.startswith(OURS)
        bounds = () if peer or not least else (Bound("images/s", n / timing.median, least, least=True),)
        return rate(name, timing, n, peer=peer, bounds=bounds)

    timings = alternate(functions, settings.repeats(7), settings.warmup(1))
    return Table(title, "images per second and core", [row(*item) for item in timings.items()], more=True)


def _ours(images: ImageSet) -> Callable[[], None]:
    data = ImageData(images, images, BATCH, len(images) // BATCH, 10, seed=0)

    def load() -> None:
        for batch in data.train_dataloader():
            AUGMENTATION(batch["images"], BatchNoise(0, "train", batch["step"]))

    return load


def _torchvision(images: Dataset[Tensor]) -> Callable[[], None]:
    loader = DataLoader(images, BATCH, shuffle=True)

    def load() -> None:
        for _ in loader:
            pass

    return load


def _transform() -> Any:
    half = (0.5, 0.5, 0.5)
    return transforms.Compose(
        [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(half, half)]
    )


class _ArrayDataset(Dataset[Tensor]):
    """Images in memory as in torchvision's CIFAR-10: arrays, each converted to a picture and transformed."""

    def __init__(self, images: Tensor) -> None:
        self._arrays, self._transform = images.permute(0, 2, 3, 1).contiguous().numpy(), _transform()

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: int) -> Any:
        return self._transform(Image.fromarray(self._arrays[index]))


class _FileDataset(Dataset[Tensor]):
    """Pictures of a folder, read as by torchvision's ImageFolder."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._paths, self._transform = [folder / name for name in names], _transform()

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self._paths[index]) as image:
            return self._transform(image.convert("RGB"))


def _files(root: Path) -> ImageFiles:
    return ImageFiles(root, list_pictures(root).names, Shape(32, 3))


def _write(folder: Path, images: Tensor) -> tuple[Path, list[str]]:
    """(folder of PNGs with a zip of them beside it, names of the PNGs)."""
    root = folder / "pictures"
    root.mkdir()
    names = [f"{i:05d}.png" for i in range(len(images))]
    with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
        for name, image in zip(names, images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / name)
            archive.write(root / name, name)
    return root, names
