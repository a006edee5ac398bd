"""A multi-layer perceptron for points in the plane."""

from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.networks.embedding import sinusoidal


class MLP(nn.Module):
    """Fully connected layers with SiLU, to each of which a sinusoidal embedding of the conditioning is added.

    Args:
        dim: dimensions of a point.
        width: units per hidden layer.
        layers: hidden layers.
        scale: what the conditioning is multiplied by before its embedding, whose periods are 2 pi and longer: take 1
            for integer times, about 100 for log sigma.

    Raises:
        ValueError: when a size is not positive.
    """

    def __init__(self, dim: int = 2, width: int = 128, layers: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        if min(dim, width, layers) < 1:
            raise ValueError(f"dim, width and layers must be positive, got {dim}, {width} and {layers}")
        self.width, self.scale = width, scale
        self.first = nn.Linear(dim, width)
        self.conditions = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.layers = nn.ModuleList(nn.Linear(width, dim if i == layers - 1 else width) for i in range(layers))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, dim) from points x (B, dim) and conditioning c (B,)."""
        embedding = sinusoidal(self.scale * c, self.width).to(x)
        h = self.first(x)
        for condition, layer in zip(self.conditions, self.layers, strict=True):
            h = layer(F.silu(h + condition(embedding)))
        return h
