"""Energy models: a score that is the gradient of a function, and so of an unnormalized density exp(-f)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


class Energy(nn.Module):
    """score(x, c) = -grad_x f(x, c) of an energy f: usable wherever a score network is.

    Args:
        net: `net(x, c)` of x (B, ...) and c (B,) -> energies f of shape (B,), or numbers of x's shape, of which
            f = |x - net(x, c)|^2 / 2 is made (Salimans & Ho 2021, Sec. 3), so that any score network has an energy.
            The last `condition_channels` of x, where the network has some, are no part of what f is a density of.
    """

    def __init__(self, net: Callable[..., Tensor]) -> None:
        super().__init__()
        self.net, self.condition_channels = net, int(getattr(net, "condition_channels", 0))

    def energy(self, x: Tensor, c: Tensor, *labels: Tensor) -> Tensor:
        """f(x, c), of shape (B,): -log of an unnormalized density.

        Raises:
            ValueError: when the network returns neither energies nor numbers of x's shape.
        """
        output = self.net(x, c, *labels)
        if output.shape == x.shape[:1]:
            return output
        x = self._images(x)
        if output.shape != x.shape:
            raise ValueError(
                f"an energy needs outputs of shape {(len(x),)} or {tuple(x.shape)}, got {tuple(output.shape)}"
            )
        return (x - output).square().flatten(1).sum(1) / 2

    def forward(self, x: Tensor, c: Tensor, *labels: Tensor) -> Tensor:
        """The score, of x's shape without the condition."""
        training = torch.is_grad_enabled()
        # a gradient is taken even where none is wanted of the result, with an attention that has a second one
        with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            x = x if x.requires_grad else x.detach().clone().requires_grad_()
            f = self.energy(x, c.clone(), *labels)
            (gradient,) = torch.autograd.grad(f.sum(), x, create_graph=training)
        return -self._images(gradient)

    def _images(self, x: Tensor) -> Tensor:
        return x[:, : x.shape[1] - self.condition_channels] if self.condition_channels else x
