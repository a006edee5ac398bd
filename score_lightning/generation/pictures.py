"""Images as PNG files: grids, scatter plots of points, histograms."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from score_lightning.data.pixels import EIGHT_BITS, Depth

CAPTION = (48, 16)
"""Least width and height of a caption in pixels."""


def save_grid(
    images: Tensor,
    path: Path,
    smallest: int = 512,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    depth: Depth = EIGHT_BITS,
) -> Path:
    """Writes images (N, C, H, W) as a PNG grid, small ones enlarged by a whole factor.

    Of more than 8 bits it has 16. Channels that are neither gray nor color stand side by side, each in gray.

    Args:
        images: in reading order.
        path: of the PNG; its folder is made.
        smallest: least width in pixels, to which the grid is enlarged.
        columns: images in a row; nearly a square when None.
        captions: below each image; the grid is then so large that they can be read.
        depth: how pixels are stored.
    """
    images = _displayed(images, depth)
    if columns is None:
        columns = -(-len(images) // max(1, round(len(images) ** 0.5)))
    if captions is not None:
        images, smallest = _captioned(images, captions, -(-smallest // columns)), 1
    return _save(_tiled(images, columns, max(1, images.shape[2] // 16)), path, smallest)


def class_captions(classes: Sequence[str] | None, n: int, label: int | None = None) -> list[str] | None:
    """The classes of generated images 0 to n - 1: that of a label, or i modulo their number; None without classes."""
    return None if classes is None else [classes[i % len(classes) if label is None else label] for i in range(n)]


def _displayed(images: Tensor, depth: Depth) -> Tensor:
    """Images (N, C, H, W) in gray or color, uint8 or, of more bits, uint16, white the largest integer."""
    if not depth.whole:
        white = 255 if depth.bits == 8 else 65535
        shares = (images.double() - depth.black) / (depth.white - depth.black)
        images = (shares * white).round().to(torch.uint8 if depth.bits == 8 else torch.uint16)
    return images if images.shape[1] in (1, 3) else torch.cat(images.split(1, dim=1), dim=3)


def _white(images: Tensor) -> int:
    return torch.iinfo(images.dtype).max


def _tiled(images: Tensor, columns: int, gap: int) -> Tensor:
    """RGB (3, H', W') of images (N, 1 or 3, H, W) of integers in rows, white between and around them."""
    columns, white = min(columns, len(images)), _white(images)
    cells = F.pad(images.expand(-1, 3, -1, -1), (gap, 0, gap, 0), value=white)
    missing = -len(images) % columns
    cells = torch.cat([cells, torch.full_like(cells[:1], white).expand(missing, -1, -1, -1)])
    rows = cells.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return F.pad(rows, (0, gap, 0, gap), value=white)


def _captioned(images: Tensor, captions: Sequence[str], smallest: int) -> Tensor:
    """Images, enlarged by a whole factor to a least width in pixels, each above its caption."""
    factor = -(-max(smallest, CAPTION[0]) // images.shape[3])
    enlarged = images.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    width, font = enlarged.shape[3], ImageFont.load_default(CAPTION[1] - 4)
    strips = []
    for text in captions[: len(images)]:
        strip = Image.new("L", (width, CAPTION[1]), 255)
        while font.getlength(text) > width and len(text) > 1:
            text = text.removesuffix("…")[:-1] + "…"
        ImageDraw.Draw(strip).text((width / 2, CAPTION[1] / 2), text, fill=0, font=font, anchor="mm")
        strips.append(torch.from_numpy(np.array(strip)))
    captioned = (torch.stack(strips)[:, None].int() * (_white(images) // 255)).to(images.dtype)
    return torch.cat([enlarged, captioned.expand(-1, images.shape[1], -1, -1)], dim=2)


def save_samples(samples: Tensor, path: Path, captions: Sequence[str] | None = None, depth: Depth = EIGHT_BITS) -> Path:
    """Writes images (N, C, H, W) as a grid, or points (N, D) as a scatter plot, or as a histogram if D = 1."""
    if samples.ndim != 4:
        return plot_points(samples, path)
    return save_grid(samples[:100], path, captions=captions, depth=depth)


def save_rows(rows: Tensor, path: Path, smallest: int = 512, depth: Depth = EIGHT_BITS) -> Path:
    """Writes images (rows, columns, C, H, W) as a grid."""
    return save_grid(rows.flatten(0, 1), path, smallest, columns=rows.shape[1], depth=depth)


def save_aligned(rows: Sequence[Tensor], path: Path, depth: Depth = EIGHT_BITS) -> Path:
    """Writes rows of images (N, C, H, W), each with its own C, below each other, image by image aligned.

    Where N images make a row too long, it continues below the other rows.
    """
    n = len(rows[0])
    columns = min(n, max(1, round((n * len(rows)) ** 0.5)))
    cells = torch.stack(alike(rows, depth))
    cells = torch.cat([cells, torch.full_like(cells[:, :1], _white(cells)).expand(-1, -n % columns, -1, -1, -1)], 1)
    return save_grid(cells.unflatten(1, (-1, columns)).transpose(0, 1).flatten(0, 2), path, columns=columns)


def alike(rows: Sequence[Tensor], depth: Depth = EIGHT_BITS) -> list[Tensor]:
    """RGB (N, 3, H, W'), of integers up to white, of each of rows (N, C, H, W) with its own C, as grids show them.

    W' is the same for all: of as many channels side by side as one of them needs, white where others have fewer.
    """
    shown = [_displayed(row, depth).expand(-1, 3, -1, -1) for row in rows]
    widest = max(row.shape[3] for row in shown)
    return [F.pad(row, (0, widest - row.shape[3]), value=_white(row)) for row in shown]


def save_neighbors(samples: Tensor, neighbors: Tensor, path: Path, blocks: int = 2, depth: Depth = EIGHT_BITS) -> Path:
    """Writes each of samples (N, C, H, W) with its neighbors (N, k, C, H, W) to its right, in `blocks` columns."""
    samples, *near = (_displayed(images, depth) for images in (samples, *neighbors.unbind(1)))
    narrow, wide = (torch.full_like(samples[..., : max(1, samples.shape[3] * k // 4)], _white(samples)) for k in (1, 4))
    return save_grid(torch.cat([samples, narrow, *near, wide], dim=3), path, columns=blocks)


def _save(grid: Tensor, path: Path, smallest: int) -> Path:
    factor = -(-smallest // grid.shape[2])
    pixels = grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2).permute(1, 2, 0).contiguous().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.uint8:
        Image.fromarray(pixels).save(path)
    else:
        import imagecodecs

        path.write_bytes(imagecodecs.png_encode(pixels))  # Pillow writes no colors of 16 bits
    return path


def plot_points(points: Tensor, path: Path) -> Path:
    """Writes a plot of points (N, D): the first two coordinates, or a histogram of a single one."""
    figure = Figure((5.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    if points.shape[1] == 1:
        axes.hist(points[:, 0].tolist(), bins=80, density=True, color="tab:blue")
    else:
        x, y = points[:, :2].T.tolist()
        axes.scatter(x, y, s=4, alpha=0.5, linewidths=0)
        axes.set_aspect("equal")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
