"""Images that are paired with pictures to condition on: in two folders, or in one file of arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from score_lightning.data.arrays import ARRAYS, depth_of, read_arrays
from score_lightning.data.files import ImageFiles
from score_lightning.data.images import ImageSet, LazyImageSet, PairedImages, Source
from score_lightning.data.listing import below_common, find_classes, list_pictures
from score_lightning.data.pictures import Picture, Shape
from score_lightning.data.rasters import ON_ITS_SIDE, ORIENTATION, Raster
from score_lightning.data.sources import Split, hold_out, npz
from score_lightning.errors import UserError

SHOWN = 3  # names of pictures without a partner


@dataclass(frozen=True)
class ConditionFiles(ImageFiles):
    """Pictures that other ones are paired with, number by number, and of which they must show the same frame.

    Args:
        partners: the others.
    """

    partners: ImageFiles | None = None

    @property
    def version(self) -> str:
        """That of both, since both were looked at."""
        return super().version if self.partners is None else f"{super().version} {self.partners.version}"

    def _decode(self, index: int) -> tuple[np.ndarray, list[str]]:
        if self.partners is not None:
            with self.open(self.names[index]) as mine, self.partners.open(self.partners.names[index]) as theirs:
                (width, height), (other_width, other_height) = _size(mine), _size(theirs)
            if abs(height - other_height * width / other_width) >= 1:
                raise UserError(
                    f"{self.root / self.names[index]} has {width} x {height} pixels, its partner "
                    f"{self.partners.root / self.partners.names[index]} {other_width} x {other_height}: the two of a "
                    "pair must show the same frame, if at another size"
                )
        return super()._decode(index)


def _size(image: Picture) -> tuple[int, int]:
    """(width, height) of a picture as it is seen."""
    if isinstance(image, Raster):  # which is turned already
        return image.size
    width, height = image.size
    return (height, width) if image.getexif().get(ORIENTATION) in ON_ITS_SIDE else (width, height)


def pairs(
    shape: Shape, condition_channels: int, path: str, conditions: str | None = None, validation: float = 0.05
) -> Split:
    """Images and the pictures that they are conditioned on.

    The path is a folder or a zip file, `conditions` another one with a picture of the same relative name for each image
    (endings may differ), cropped and resized alike. Or the path is a file of arrays `images` and `conditions`
    (N, H, W) or (N, H, W, C), of one type, and `labels` (N,) if there are any.

    Args:
        shape: of the images.
        condition_channels: channels of the pictures.
        path: of the images, or of both.
        conditions: of the pictures.
        validation: share that is held out.
    """
    root = Path(path).expanduser()
    if root.suffix in ARRAYS and not root.is_dir():
        return _of_arrays(shape, condition_channels, root, conditions, validation)
    if conditions is None:
        raise UserError(
            f"data=pairs: {root} holds the images; give the pictures they are paired with, data.conditions=…"
        )
    other = Path(conditions).expanduser()
    listings = [list_pictures(place) for place in (root, other)]
    names, partners = _matched(root, other, listings[0].names, listings[1].names)
    classes, files = find_classes(names), ImageFiles(root, names, shape)
    shown = ConditionFiles(other, partners, replace(shape, channels=condition_channels), partners=files)
    images = LazyImageSet(files, classes.labels, _source(files, (*listings[0].notes, *classes.notes), classes.names))
    return hold_out(PairedImages(images, LazyImageSet(shown, source=_source(shown, listings[1].notes))), validation)


def _source(files: ImageFiles, notes: Sequence[str], classes: tuple[str, ...] | None = None) -> Source:
    return Source(classes, files.content, tuple(notes))


def _matched(root: Path, other: Path, names: list[str], others: list[str]) -> tuple[list[str], list[str]]:
    """The names in both places, in the same order.

    Raises:
        UserError: when a picture has no partner, or two.
    """
    keyed = []
    for place, listed in ((root, names), (other, others)):
        keys = [str(PurePosixPath(name).with_suffix("")) for name in below_common(listed)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise UserError(f"{place} has several pictures named {twice}: partners have the same name, endings aside")
        keyed.append(dict(zip(keys, listed, strict=True)))
    alone = [sorted(set(a) - set(b)) for a, b in (keyed, keyed[::-1])]
    said = [
        f"{len(keys):,} of {place} ({', '.join(keys[:SHOWN])}{', …' if len(keys) > SHOWN else ''})"
        for place, keys in zip((root, other), alone, strict=True)
        if keys
    ]
    if said:
        raise UserError(f"data=pairs: pictures without a partner of the same relative name: {' and '.join(said)}")
    return list(keyed[0].values()), [keyed[1][key] for key in keyed[0]]


def _of_arrays(shape: Shape, channels: int, path: Path, conditions: str | None, validation: float) -> Split:
    if conditions is not None:
        raise UserError(f"data=pairs: {path} holds both images and conditions: leave out data.conditions={conditions}")
    images, _ = npz(shape, str(path), validation=0)
    shown, _ = read_arrays(path, (channels, *images.shape[1:]), "conditions")
    expected = (len(images), channels, *images.shape[1:])
    if tuple(shown.shape) != expected:
        raise UserError(
            f"{path}: conditions must be as many as images, of their size, with {channels} channels "
            f"(condition.picture_channels): {expected} as N x C x H x W; got {tuple(shown.shape)}"
        )
    depth = depth_of(path, shown, shape.depth)
    source = Source(content=ImageSet(shown, depth=depth).sha256)
    return hold_out(PairedImages(images, ImageSet(shown, source=source, depth=depth)), validation)
