"""Data sets in the plane and on the line, on which the theory can be seen: float32 points (N, D) of size about 1.

Mixtures are known exactly; `MIXTURES` has their means, standard deviation and weights.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def _tree(depth: int = 4, each: int = 8) -> tuple[Tensor, Tensor]:
    """(means (K, 2), weights (K,)) of Gaussians along the branches of a tree, thinner ones of less weight."""
    means, weights, tips = [], [], [(torch.tensor([0.12, -0.45]), 1.15, 0.6)]
    for level in range(depth):
        grown = []
        for root, angle, length in tips:
            way = length * torch.tensor([math.cos(angle), math.sin(angle)])
            share = torch.arange(1, each + 1)[:, None] / each
            means.append(root + share * way)
            weights.append(torch.full((each,), 0.5**level * length))
            grown += [(root + way, angle + turn, 0.62 * length) for turn in (0.65, -0.55)]
        tips = grown
    return torch.cat(means), torch.cat(weights) / torch.cat(weights).sum()


_BRANCHES, _WEIGHTS = _tree()
MIXTURES: dict[str, tuple[Tensor, float, Tensor]] = {
    "mixture": (torch.tensor([[-0.8, -0.5], [0.1, 0.8], [0.8, -0.4]]), 0.15, torch.tensor([0.3, 0.3, 0.4])),
    # Song & Ermon 2019, Sec. 3.2.2
    "pair": (torch.tensor([[5.0, 5.0], [-5.0, -5.0]]), 1.0, torch.tensor([0.8, 0.2])),
    "tree": (_BRANCHES, 0.02, _WEIGHTS),
    "trees": (torch.cat([_BRANCHES, _BRANCHES * torch.tensor([-1, 1])]), 0.02, _WEIGHTS.repeat(2) / 2),
    "pair_1d": (torch.tensor([[-0.8], [0.6]]), 0.15, torch.tensor([0.4, 0.6])),
}
"""Name -> (means (K, D), standard deviation, weights (K,)) of mixtures of Gaussians."""


def draw(name: str, n: int, generator: torch.Generator) -> Tensor:
    """float32 (n, D) points of the set `name`, one of `SETS`.

    Raises:
        ValueError: for an unknown name, or n < 1.
    """
    if name not in SETS or n < 1:
        raise ValueError(f"set must be one of {', '.join(SETS)}, and n positive; got {name!r} and {n}")
    return SETS[name](n, generator)


def _mixture(name: str) -> Callable[[int, torch.Generator], Tensor]:
    def points(n: int, generator: torch.Generator) -> Tensor:
        means, std, weights = MIXTURES[name]
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        return means[k] + std * torch.randn(n, means.shape[1], generator=generator)

    return points


def _two_moons(n: int, generator: torch.Generator) -> Tensor:
    """Two half circles, each around an end of the other."""
    angle, side = math.pi * torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.5
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    return 0.7 * torch.where(side[:, None], upper, -upper) + 0.04 * torch.randn(n, 2, generator=generator)


def _checkerboard(n: int, generator: torch.Generator) -> Tensor:
    """The black squares of a board of four by four on [-1, 1]^2."""
    row, half = (torch.randint(k, (n,), generator=generator) for k in (4, 2))
    corner = torch.stack([2 * half + row % 2, row], 1)
    return (corner + torch.rand(n, 2, generator=generator)) / 2 - 1


def _swiss_roll(n: int, generator: torch.Generator) -> Tensor:
    """A spiral of one turn and a half."""
    angle = 1.5 * math.pi * (1 + 2 * torch.rand(n, generator=generator))
    spiral = angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1) / (4.5 * math.pi)
    return spiral + 0.02 * torch.randn(n, 2, generator=generator)


def _rings(n: int, generator: torch.Generator) -> Tensor:
    """Two circles around 0."""
    radius = torch.tensor([0.4, 1.0])[torch.randint(2, (n,), generator=generator)]
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    circle = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return circle + 0.03 * torch.randn(n, 2, generator=generator)


def _line(n: int, generator: torch.Generator) -> Tensor:
    """Uniform on a line of length 2 at 30 degrees: it has no density in the plane (Song & Ermon 2019, Sec. 3.2.1)."""
    along = 2 * torch.rand(n, 1, generator=generator) - 1
    return along * torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]])


SETS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    **{name: _mixture(name) for name in MIXTURES},
    "two_moons": _two_moons,
    "checkerboard": _checkerboard,
    "swiss_roll": _swiss_roll,
    "rings": _rings,
    "line": _line,
}
"""Name -> (n, generator) -> points (n, D)."""
