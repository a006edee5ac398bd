"""Instance norm++, with and without a noise level (Song & Ermon 2019, App. A)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""channels -> a norm of (x, level)."""


def instance_norm_plus(x: Tensor, gamma: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """gamma (instance_norm(x) + alpha m) + beta (B, C, H, W) of x (B, C, H, W), the others (C,) or (B, C).

    Instance norm removes every channel's mean; m brings it back, standardized over channels (App. A, as in its code).
    """
    gamma, alpha, beta = (part[..., None, None] for part in (gamma, alpha, beta))
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    spread, center = torch.var_mean(mean, 1, keepdim=True)
    m = (mean - center) * torch.rsqrt(spread + 1e-5)
    return gamma * ((x - mean) * torch.rsqrt(variance + 1e-5) + alpha * m) + beta


class ConditionalInstanceNormPlus(nn.Module):
    """Instance norm++ with a row of gamma, alpha and beta per noise level."""

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(levels, 3 * channels)
        nn.init.normal_(self.embedding.weight[:, : 2 * channels], 1, 0.02)
        nn.init.zeros_(self.embedding.weight[:, 2 * channels :])

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, C, H, W) from x (B, C, H, W) and level (B,).

        Raises:
            TypeError: when the levels are no whole numbers.
        """
        if level.is_floating_point():  # which torch before 2.13 does not notice on the device meta
            raise TypeError("its norms have a row for each noise level: take conditioning=level")
        return instance_norm_plus(x, *self.embedding(level).chunk(3, 1))


class InstanceNormPlus(nn.Module):
    """Instance norm++ whatever the noise level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.gamma = (nn.Parameter(1 + 0.02 * torch.randn(channels)) for _ in range(2))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, level: Tensor) -> Tensor:  # noqa: ARG002 - the signature of the conditional norm
        """(B, C, H, W) from x (B, C, H, W)."""
        return instance_norm_plus(x, self.gamma, self.alpha, self.beta)


class NoNorm(nn.Module):
    """x itself, whatever the noise level."""

    def __init__(self, channels: int) -> None:  # noqa: ARG002 - the signature of the norms
        super().__init__()

    def forward(self, x: Tensor, level: Tensor) -> Tensor:  # noqa: ARG002
        """x."""
        return x
