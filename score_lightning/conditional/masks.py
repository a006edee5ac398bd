"""Images with a part to paint, as conditions; random masks to train with (Saharia et al. 2022b, App. B).

A mask is a function of `NUMBERS` uniform numbers and the size of the images; lengths are shares of their shorter side.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from score_lightning.conditional.measurement import Measurement
from score_lightning.conditional.pictures import Condition
from score_lightning.models import Estimate
from score_lightning.schedules import RandnLike

Masks = Literal["mixed", "free_form", "boxes", "center"]

STROKES, SEGMENTS, BOXES = 4, 5, 5  # at most
NUMBERS = 2 + STROKES * (4 + 2 * SEGMENTS) + 1 + 3 * BOXES
FREE_FORM = 0.6  # share of free-form masks among mixed ones
TURN = 2 * math.pi / 3  # of a stroke at a vertex, at most
LENGTH, WIDTH = (0.1, 0.4), (0.04, 0.12)  # of a segment and of a stroke
AREA, ASPECT = (0.1, 0.4), 2.0  # of all boxes together, as a share of the image, before they overlap; of a box's sides


@dataclass(frozen=True)
class Masked(Condition):
    """The image without the pixels of a random mask, where it is 0, and a channel that is 1 where pixels are known.

    Known pixels are put into every estimate: the loss is that of the others alone, and any sampler keeps them. Palette
    has that loss, too, but fills in noise and no channel for the mask (Saharia et al. 2022b, App. B).

    Args:
        masks: their kind, see `draw_masks`.
    """

    masks: Masks = "mixed"
    partial: ClassVar[bool] = True

    def observe(self, picture: Tensor, randn_like: RandnLike = torch.randn_like) -> Tensor:
        """(B, C + 1, H, W): the known pixels, and where they are."""
        u = torch.special.ndtr(randn_like(picture.new_empty(len(picture), NUMBERS)))
        painted = draw_masks(self.masks, picture.shape[2], picture.shape[3], u.clamp(max=1 - 2**-20))
        return self.read(picture, ~painted)

    def read(self, picture: Tensor, known: Tensor | None = None) -> Tensor:
        """y (B, C + 1, H, W) of pictures (B, C, H, W) and the known pixels, bool (B or 1, 1, H, W).

        Raises:
            ValueError: without these.
        """
        if known is None:
            raise ValueError("give the pixels that are known")
        mask = known.to(picture).expand(len(picture), -1, -1, -1)
        return torch.cat([picture * mask, mask], 1)

    def impose(self, estimate: Estimate, given: Tensor) -> Estimate:
        """The estimate with the known pixels."""
        picture, known = given.to(estimate.x_t).split([given.shape[1] - 1, 1], 1)
        return estimate.with_x_0(torch.where(known > 0, picture, estimate.x_0))

    def measurement(self, y: Tensor) -> Measurement:
        """The known pixels."""
        picture, known = y.split([y.shape[1] - 1, 1], 1)
        return Measurement(lambda x: x * known.to(x), picture)


def draw_masks(kind: Masks, height: int, width: int, u: Tensor) -> Tensor:
    """bool (B, 1, H, W), the pixels to paint, from uniform numbers u (B, NUMBERS) on [0, 1).

    Args:
        kind: free_form, 1 to 4 strokes of a brush that turns (after Yu et al. 2019, Alg. 1); boxes, 1 to 5 of them
            with together 10 to 40 % of the area, less where they overlap; mixed, 60 % free_form and 40 % boxes, as
            Palette; or center, the middle half of each side.
        height, width: of the images.
        u: on their device.
    """
    return MASKS[kind](height, width, u)[:, None]


def _mixed(height: int, width: int, u: Tensor) -> Tensor:
    free = (u[:, 0] < FREE_FORM)[:, None, None]
    return torch.where(free, _free_form(height, width, u), _boxes(height, width, u))


def _free_form(height: int, width: int, u: Tensor) -> Tensor:
    """The pixels whose centers are no farther from a stroke than half its width, at least 0.75 pixels."""
    side, strokes = min(height, width), u[:, 2 : 2 + STROKES * (4 + 2 * SEGMENTS)].unflatten(1, (STROKES, -1))
    count = 1 + (STROKES * u[:, 1]).long()
    rows, columns = (torch.arange(n, device=u.device) + 0.5 for n in (height, width))
    painted = torch.zeros(len(u), height, width, dtype=torch.bool, device=u.device)
    for i in range(STROKES):
        start, brush, heading, moves = strokes[:, i].split([2, 1, 1, 2 * SEGMENTS], dim=1)
        turns, lengths = moves.chunk(2, 1)
        angle = 2 * math.pi * heading + (TURN * (2 * turns - 1)).cumsum(1)
        step = side * _between(LENGTH, lengths)
        path = [start * start.new_tensor([height, width])]
        for k in range(SEGMENTS):
            move = step[:, k, None] * torch.stack([angle[:, k].sin(), angle[:, k].cos()], 1)
            path.append((path[-1] + move).clamp(min=0).minimum(start.new_tensor([height, width])))
        reach = (side * _between(WIDTH, brush[:, 0]) / 2).clamp(min=0.75)
        near = _distance(rows, columns, torch.stack(path, 1)) <= reach[:, None, None]
        painted = painted | (near & (i < count)[:, None, None])
    return painted


def _distance(rows: Tensor, columns: Tensor, path: Tensor) -> Tensor:
    """(B, H, W): of pixels at rows (H,) and columns (W,) to the nearest point of paths (B, V, 2)."""
    a, b = path[:, :-1, :, None, None], path[:, 1:, :, None, None]  # (B, V - 1, 2, 1, 1)
    down, right = rows[:, None] - a[:, :, 0], columns - a[:, :, 1]
    way = b - a
    along = (down * way[:, :, 0] + right * way[:, :, 1]) / way.square().sum(2).clamp(min=1e-12)
    along = along.clamp(0, 1)
    return torch.hypot(down - along * way[:, :, 0], right - along * way[:, :, 1]).amin(1)


def _boxes(height: int, width: int, u: Tensor) -> Tensor:
    count = 1 + (BOXES * u[:, 1]).long()
    area, places = _between(AREA, u[:, -1 - 3 * BOXES]) / count, u[:, -3 * BOXES :].unflatten(1, (BOXES, 3))
    rows, columns = (torch.arange(n, device=u.device) for n in (height, width))
    painted = torch.zeros(len(u), height, width, dtype=torch.bool, device=u.device)
    for i in range(BOXES):
        aspect, top, left = places[:, i].unbind(1)
        stretch = ASPECT ** (aspect - 0.5)
        inside = []
        for line, n, share, place in ((rows, height, stretch, top), (columns, width, 1 / stretch, left)):
            length = (n * area.sqrt() * share).round().clamp(1, n)
            first = (place * (n - length + 1)).floor()[:, None]
            inside.append((line >= first) & (line < first + length[:, None]))
        painted = painted | (inside[0][:, :, None] & inside[1][:, None] & (i < count)[:, None, None])
    return painted


def _center(height: int, width: int, u: Tensor) -> Tensor:
    painted = torch.zeros(len(u), height, width, dtype=torch.bool, device=u.device)
    painted[:, height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return painted


def _between(ends: tuple[float, float], u: Tensor) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * u


MASKS: dict[Masks, Callable[[int, int, Tensor], Tensor]] = {
    "mixed": _mixed, "free_form": _free_form, "boxes": _boxes, "center": _center,
}  # fmt: skip
