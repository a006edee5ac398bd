"""How to choose a ladder of noise levels and Langevin's step for a data set (Song & Ermon 2020, NCSNv2).

Technique 1: the largest noise is the largest distance between two data points, so that Langevin dynamics can go from
any to any other. Technique 2: neighboring levels overlap, so that samples of one are where the next was trained.
Technique 4: the step with which T steps at a level keep the variance that the next level expects.
"""

import math
from statistics import NormalDist

import torch
from torch import Tensor
from tqdm.auto import tqdm

OVERLAP = 0.5  # Technique 2's constant, "about 0.5"; the paper's own ladders have 0.566


def largest_distance(x: Tensor, block: int = 2048, progress: bool = False) -> float:
    """The largest Euclidean distance between two of the points x (N, ...), all pairs looked at (Technique 1).

    Raises:
        ValueError: of fewer than two points.
    """
    if len(x) < 2:
        raise ValueError(f"a distance needs at least 2 points, got {len(x)}")
    parts, largest = x.flatten(1).float().split(block), 0.0
    for i, part in enumerate(tqdm(parts, "distances", disable=None if progress else True, leave=False)):
        largest = max(largest, *(torch.cdist(part, other).max().item() for other in parts[i:]))
    return largest


def overlap(ratio: float, dim: int) -> float:
    """Phi(sqrt(2D) (r - 1) + 3r) - Phi(sqrt(2D) (r - 1) - 3r), Technique 2, for the ratio r of neighboring sigmas."""
    normal, shift = NormalDist(), math.sqrt(2 * dim) * (ratio - 1)
    return normal.cdf(shift + 3 * ratio) - normal.cdf(shift - 3 * ratio)


def count_levels(sigma_min: float, sigma_max: float, dim: int) -> int:
    """The smallest number of levels from sigma_max to sigma_min whose neighbors overlap by at least OVERLAP.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max and dim >= 1.
    """
    if not 0 < sigma_min < sigma_max or dim < 1:
        raise ValueError(f"levels need 0 < sigma_min < sigma_max and dim >= 1, got {sigma_min}, {sigma_max}, {dim}")
    low, high = 1.0, 1.0 + 8 / math.sqrt(dim) + 8
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle, dim) > OVERLAP else (low, middle)
    return 1 + math.ceil(math.log(sigma_max / sigma_min) / math.log(low) - 1e-9)


def variance_ratio(step_size: float, sigma_min: float, ratio: float, steps: int) -> float:
    """s_T^2 / sigma^2 after T steps at a level, from the level above, for data at one point (Technique 4, Prop. 3).

    (1 - u)^(2T) (r^2 - c) + c with u = step_size / sigma_min^2 and c = 2u / (1 - (1 - u)^2).
    """
    u = step_size / sigma_min**2
    c = 2 * u / (1 - (1 - u) ** 2)
    return (1 - u) ** (2 * steps) * (ratio**2 - c) + c


def choose_step(sigma_min: float, sigma_max: float, levels: int, steps: int) -> float:
    """Langevin's step size for which `variance_ratio` is closest to 1 (Technique 4), to two digits more than needed.

    Raises:
        ValueError: unless levels >= 2 and steps >= 1.
    """
    if levels < 2 or steps < 1:
        raise ValueError(f"a step needs levels >= 2 and steps >= 1, got {levels} and {steps}")
    ratio = (sigma_max / sigma_min) ** (1 / (levels - 1))
    u = torch.linspace(1e-4, 1, 10_000, dtype=torch.float64)[:-1]
    for _ in range(3):  # ever finer around the best
        distance = torch.tensor(
            [abs(variance_ratio(v * sigma_min**2, sigma_min, ratio, steps) - 1) for v in u.tolist()]
        )
        best, width = u[distance.argmin()].item(), (u[1] - u[0]).item()
        u = torch.linspace(max(best - width, width / 100), best + width, 1000, dtype=torch.float64)
    return best * sigma_min**2
