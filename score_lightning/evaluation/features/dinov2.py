"""The vision transformer of DINOv2 (Oquab et al. 2023), on the published weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 64  # channels of an attention head, in all published sizes


class Scale(nn.Module):
    """Multiplies channels (Touvron et al. 2021, LayerScale)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., channels) -> the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """Self-attention and a perceptron, each normalized before, scaled after, and added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.ls1, self.ls2 = Scale(channels), Scale(channels)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(channels, 3 * channels), "proj": nn.Linear(channels, channels)})
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(channels, 4 * channels), "fc2": nn.Linear(4 * channels, channels)},
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, channels) -> the same shape."""
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.ls1(self.attn["proj"](attended))
        return x + self.ls2(self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))))


class DINOv2(nn.Module):
    """The normalized class token of images.

    Args:
        state: the published state dict, which also determines the size of the network.

    Raises:
        RuntimeError, KeyError: when it holds the weights of another network.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        kernel, depth = state["patch_embed.proj.weight"], sum(name.endswith("ls1.gamma") for name in state)
        channels, _, self._patch, _ = kernel.shape
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.mask_token = nn.Parameter(torch.zeros(1, channels))  # of the training objective; unused here
        self.pos_embed = nn.Parameter(torch.zeros(state["pos_embed"].shape))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, channels, self._patch, self._patch)})
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.load_state_dict(state)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels) of normalized images (B, 3, H, W), H and W multiples of the patch's size."""
        patches = self.patch_embed["proj"](x)
        tokens = patches.flatten(2).transpose(1, 2) + self._positions(patches.shape[2], patches.shape[3])
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        return self.norm(self.blocks(torch.cat([first, tokens], 1)))[:, 0]

    def _positions(self, height: int, width: int) -> Tensor:
        """(1, height width, channels): the embedding of each patch's position, resized from the grid of training."""
        grid = self.pos_embed[:, 1:]
        side = round(grid.shape[1] ** 0.5)
        if (height, width) == (side, side):
            return grid
        square = grid.transpose(1, 2).unflatten(2, (side, side))
        # the published code adds 0.1 to the size that the factor is computed from, which shifts the sampled positions
        factors = (height + 0.1) / side, (width + 0.1) / side
        return F.interpolate(square, scale_factor=factors, mode="bicubic").flatten(2).transpose(1, 2)
