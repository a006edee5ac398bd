"""Images as PNG files: grids, scatter plots of points, histograms."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

CAPTION = (48, 16)
"""Least width and height of a caption in pixels."""


def save_grid(
    images: Tensor, path: Path, smallest: int = 512, columns: int | None = None, captions: Sequence[str] | None = None
) -> Path:
    """Writes uint8 images (N, C, H, W) as a PNG grid, small ones enlarged by a whole factor.

    Args:
        images: in reading order.
        path: of the PNG; its folder is made.
        smallest: least width in pixels, to which the grid is enlarged.
        columns: images in a row; nearly a square when None.
        captions: below each image; the grid is then so large that they can be read.
    """
    if columns is None:
        columns = -(-len(images) // max(1, round(len(images) ** 0.5)))
    if captions is not None:
        images, smallest = _captioned(images, captions, -(-smallest // columns)), 1
    return _save(_tiled(images, columns, max(1, images.shape[2] // 16)), path, smallest)


def class_captions(classes: Sequence[str] | None, n: int, label: int | None = None) -> list[str] | None:
    """The classes of generated images 0 to n - 1: that of a label, or i modulo their number; None without classes."""
    return None if classes is None else [classes[i % len(classes) if label is None else label] for i in range(n)]


def _tiled(images: Tensor, columns: int, gap: int) -> Tensor:
    """RGB uint8 (3, H', W') of uint8 images (N, 1 or 3, H, W) in rows, white between and around them."""
    columns = min(columns, len(images))
    cells = F.pad(images.expand(-1, 3, -1, -1), (gap, 0, gap, 0), value=255)
    missing = -len(images) % columns
    cells = torch.cat([cells, torch.full_like(cells[:1], 255).expand(missing, -1, -1, -1)])
    rows = cells.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return F.pad(rows, (0, gap, 0, gap), value=255)


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
    return torch.cat([enlarged, torch.stack(strips)[:, None].expand(-1, images.shape[1], -1, -1)], dim=2)


def save_samples(samples: Tensor, path: Path, captions: Sequence[str] | None = None) -> Path:
    """Writes images uint8 (N, C, H, W) as a grid, or points (N, D) as a scatter plot, or as a histogram if D = 1."""
    if samples.ndim != 4:
        return plot_points(samples, path)
    return save_grid(samples[:100], path, captions=captions)


def save_rows(rows: Tensor, path: Path, smallest: int = 512) -> Path:
    """Writes uint8 images (rows, columns, C, H, W) as a grid."""
    return save_grid(rows.flatten(0, 1), path, smallest, columns=rows.shape[1])


def save_aligned(rows: Sequence[Tensor], path: Path) -> Path:
    """Writes rows of uint8 images (N, C, H, W), each with its own C, below each other, image by image aligned.

    Where N images make a row too long, it goes on below the other rows.
    """
    n = len(rows[0])
    columns = min(n, max(1, round((n * len(rows)) ** 0.5)))
    cells = torch.stack([in_color(row) for row in rows])
    cells = torch.cat([cells, torch.full_like(cells[:, :1], 255).expand(-1, -n % columns, -1, -1, -1)], 1)
    return save_grid(cells.unflatten(1, (-1, columns)).transpose(0, 1).flatten(0, 2), path, columns=columns)


def in_color(images: Tensor) -> Tensor:
    """(N, 3, H, W) of images (N, C, H, W): the first three channels, or the first one alone where there are fewer."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def save_neighbors(samples: Tensor, neighbors: Tensor, path: Path, blocks: int = 2) -> Path:
    """Writes each of samples (N, C, H, W) with its neighbors (N, k, C, H, W) to its right, in `blocks` columns."""
    narrow, wide = (torch.full_like(samples[..., : max(1, samples.shape[3] * k // 4)], 255) for k in (1, 4))
    return save_grid(torch.cat([samples, narrow, *neighbors.unbind(1), wide], dim=3), path, columns=blocks)


def _save(grid: Tensor, path: Path, smallest: int) -> Path:
    picture = Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy())
    factor = -(-smallest // picture.width)
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
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
