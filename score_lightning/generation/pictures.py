"""Images as PNG files: grids, scatter plots of points, histograms."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def save_grid(images: Tensor, path: Path, smallest: int = 512, columns: int | None = None) -> Path:
    """Writes uint8 images (N, C, H, W) as a PNG grid, small ones enlarged by a whole factor.

    Args:
        images: in reading order.
        path: of the PNG; its folder is made.
        smallest: least width in pixels, to which the grid is enlarged.
        columns: images in a row; nearly a square when None.
    """
    if columns is None:
        columns = -(-len(images) // max(1, round(len(images) ** 0.5)))
    grid = make_grid(images, nrow=columns, padding=max(1, images.shape[2] // 16), pad_value=255)
    return _save(grid, path, smallest)


def save_samples(samples: Tensor, path: Path) -> Path:
    """Writes images uint8 (N, C, H, W) as a grid, or points (N, D) as a scatter plot, or as a histogram if D = 1."""
    return save_grid(samples[:100], path) if samples.ndim == 4 else plot_points(samples, path)


def save_rows(rows: Tensor, path: Path, smallest: int = 512) -> Path:
    """Writes uint8 images (rows, columns, C, H, W) as a grid."""
    return save_grid(rows.flatten(0, 1), path, smallest, columns=rows.shape[1])


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
