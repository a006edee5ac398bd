"""A multi-layer perceptron for points in the plane."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from score_lightning.networks.embedding import sinusoidal


class MLP(nn.Module):
    """Fully connected layers with SiLU on the point and a sinusoidal embedding of the conditioning.

    Args:
        dim: dimensions of a point.
        width: units per hidden layer.
        layers: hidden layers.
        scale: what the conditioning is multiplied by before its embedding, whose periods are 2 pi and longer: take 1
            for integer times, about 100 for log sigma.
    """

    def __init__(self, dim: int = 2, width: int = 128, layers: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        sizes = [dim + width, *[width] * layers]
        hidden = [module for i, o in pairwise(sizes) for module in (nn.Linear(i, o), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, dim) from points x (B, dim) and conditioning c (B,)."""
        return self.layers(torch.cat([x, sinusoidal(self.scale * c, self.width).to(x)], 1))
