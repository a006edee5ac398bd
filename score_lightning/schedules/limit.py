"""The continuous limit of a discrete schedule: smooth values between its levels."""

import torch
from torch import Tensor

from score_lightning.schedules.continuous import Continuous


class Limit(Continuous):
    """The continuous limit of a discrete schedule: its own levels, and smooth values between them.

    Level i is at time i / (levels - 1). ln alpha and ln(sigma / alpha) are cubic in each interval, with slopes of
    central differences (Catmull & Rom 1974), which NCSN's ladder fits exactly.

    Args:
        alpha, sigma: (levels,) float64, of the discrete schedule.
        start: its distribution at the most noise.

    Raises:
        ValueError: for a single level.
    """

    def __init__(self, alpha: Tensor, sigma: Tensor, start: str) -> None:
        super().__init__(1e-12)
        if len(alpha) < 2:
            raise ValueError("a schedule of one level has no continuous limit")
        self._set_ends(0.0, 1.0)
        self.limit_of, self.start = len(alpha), start
        self._values = (alpha.log(), (sigma / alpha).log())
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def _logs(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(ln alpha, ln(sigma / alpha)) of the levels, copied once to the device and the type of a tensor."""
        key = like.device, like.dtype
        if key not in self._tables:
            with torch.inference_mode(False):
                self._tables[key] = (self._values[0].to(like), self._values[1].to(like))
        return self._tables[key]

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha(t), of t's shape."""
        return _cubic(self._logs(t)[0], t)

    def sigma(self, t: Tensor) -> Tensor:
        """sigma(t), of t's shape."""
        return (_cubic(self._logs(t)[1], t) + self.log_alpha(t)).exp()

    def inverse(self, ratio: Tensor) -> Tensor:
        """By bisection of the interval between two levels."""
        table, last = self._logs(ratio)[1], len(self._values[1]) - 1
        wanted = ratio.log()
        i = torch.searchsorted(table, wanted.contiguous()).clamp(1, last) - 1
        low, high = i.to(ratio) / last, (i + 1).to(ratio) / last
        for _ in range(48):
            middle = (low + high) / 2
            below = _cubic(table, middle) < wanted
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return high


def _cubic(values: Tensor, t: Tensor) -> Tensor:
    """Cubic interpolation of values at equally spaced times from 0 to 1, of t's shape."""
    last = len(values) - 1
    i = (t.detach() * last).long().clamp(0, last - 1)
    u = t * last - i
    slopes = torch.cat([values[1:2] - values[:1], (values[2:] - values[:-2]) / 2, values[-1:] - values[-2:-1]])
    p, q, m, n = values[i], values[i + 1], slopes[i], slopes[i + 1]
    return p + u * (m + u * (3 * (q - p) - 2 * m - n + u * (2 * (p - q) + m + n)))
