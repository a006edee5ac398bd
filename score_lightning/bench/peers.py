"""The other side of a comparison: the alternatives that users have, each trained as in its own project."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_lightning.bench.ours import build_model
from score_lightning.bench.settings import Size, Step
from score_lightning.formats.unet2d import unet_config

LR, CLIP, DECAY = 2e-4, 1.0, 0.9999
Average = Callable[[nn.Module], Callable[[], Any] | None]


@dataclass(frozen=True)
class Peer:
    """Another project's network and training.

    Args:
        name: of the project.
        net: the network.
        forward: its forward pass, from x (B, C, H, W) and t (B,).
        loss: of images x_0 (B, C, H, W) in [-1, 1].
        average: starts an average of weights and returns its update; None where the project has no average.
        same: whether the network is the same as ours, operation by operation.
    """

    name: str
    net: nn.Module
    forward: Callable[[Tensor, Tensor], Tensor]
    loss: Callable[[Tensor], Tensor]
    average: Average
    same: bool

    @property
    def note(self) -> str:
        """The number of parameters, and whether the network is another one."""
        parameters = f"{sum(p.numel() for p in self.net.parameters()) / 1e6:.2f} M parameters"
        return parameters if self.same else f"another network, {parameters}"


def available(size: Size, device: str) -> Iterator[Peer]:
    """The peers whose packages are installed."""
    for build in (diffusers, denoising_diffusion, azula):
        with suppress(ImportError):
            yield build(size, device)


def build_step(peer: Peer, size: Size, precision: str, device: str) -> Step:
    """A training step: Adam, clipping, and the project's average."""
    parameters = list(peer.net.parameters())
    optimizer, average = torch.optim.Adam(parameters, LR), peer.average(peer.net)
    x_0 = size.images().to(device).float() / 127.5 - 1
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed")
    peer.net.train()

    def compute() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = peer.loss(x_0)
        loss.backward()

    def update() -> None:
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        if average is not None:
            average()

    return Step(compute, update)


def diffusers(size: Size, device: str) -> Peer:
    """The same network in diffusers, trained as in its example of unconditional generation."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    net = diffusers_net(size).to(device)
    schedule = "linear" if size.resolved.config.schedule["name"] == "linear_beta" else "squaredcos_cap_v2"
    scheduler: Any = DDPMScheduler(1000, beta_schedule=schedule)

    def loss(x_0: Tensor) -> Tensor:
        noise, t = torch.randn_like(x_0), torch.randint(1000, (len(x_0),), device=x_0.device)
        return F.mse_loss(net(scheduler.add_noise(x_0, noise, t), t).sample.float(), noise)

    def average(net: nn.Module) -> Callable[[], Any]:
        ema = EMAModel(net.parameters(), DECAY, use_ema_warmup=True)
        return lambda: ema.step(net.parameters())

    return Peer("diffusers", net, lambda x, t: net(x, t).sample, loss, average, same=True)


def diffusers_net(size: Size) -> nn.Module:
    """The network of diffusers that is the same as ours, operation by operation."""
    from diffusers import UNet2DModel

    ours: Any = build_model(size).net
    unet: Any = UNet2DModel(**{key: value for key, value in unet_config(ours).items() if not key.startswith("_")})
    return unet


def denoising_diffusion(size: Size, device: str) -> Peer:
    """Its network with the same widths, and the average of its trainer with the same interval."""
    from denoising_diffusion_pytorch import GaussianDiffusion
    from ema_pytorch import EMA

    c, net = size.resolved.config, denoising_diffusion_net(size)
    schedule = "linear" if c.schedule["name"] == "linear_beta" else "cosine"
    diffusion = GaussianDiffusion(net, image_size=c.images.size, objective="pred_noise", beta_schedule=schedule)
    diffusion.to(device)

    def average(_: nn.Module) -> Callable[[], Any]:
        return EMA(diffusion, beta=0.995, update_every=10).to(device).update

    def loss(x_0: Tensor) -> Tensor:
        return diffusion((x_0 + 1) / 2)

    return Peer("denoising-diffusion-pytorch", net, net, loss, average, same=False)


def denoising_diffusion_net(size: Size) -> Any:
    """The network of denoising-diffusion-pytorch with the same widths, and attention at the same resolutions."""
    from denoising_diffusion_pytorch import Unet

    c = size.resolved.config
    resolutions = [c.images.size // 2**i for i in range(len(c.net["multipliers"]))]
    return Unet(
        dim=c.net["channels"],
        dim_mults=tuple(c.net["multipliers"]),
        channels=c.images.channels,
        full_attn=tuple(resolution in c.net["attention"] for resolution in resolutions),
        dropout=c.net["dropout"],
    )


def azula(size: Size, device: str) -> Peer:
    """Its U-Net with the same widths, but without attention and average, which the project does not have."""
    from azula.denoise import SimpleDenoiser
    from azula.noise import VPSchedule

    net = azula_net(size).to(device)
    denoiser = SimpleDenoiser(net, VPSchedule())

    def loss(x_0: Tensor) -> Tensor:
        return denoiser.loss(x_0, torch.rand(len(x_0), device=x_0.device))

    return Peer("azula", net, lambda x, t: net(x, t.to(x)), loss, lambda _: None, same=False)


def azula_net(size: Size) -> nn.Module:
    """azula's U-Net with the same widths and numbers of blocks."""
    c = size.resolved.config
    widths = [c.net["channels"] * multiplier for multiplier in c.net["multipliers"]]
    return _time_modulated(c.images.channels, widths, c.net["blocks"], c.net["groups"], c.net["dropout"])


def _time_modulated(channels: int, widths: list[int], blocks: int, groups: int, dropout: float) -> nn.Module:
    """azula's U-Net, conditioned on time as in its tutorials: through an embedding and a perceptron."""
    from azula.nn.layers import SineEncoding
    from azula.nn.unet import UNet

    features = 4 * widths[0]

    class TimeModulated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            settings = {"norm": "group", "groups": groups, "dropout": dropout, "mod_features": features}
            self.unet = UNet(channels, channels, hid_channels=widths, hid_blocks=[blocks] * len(widths), **settings)
            self.time = nn.Sequential(
                SineEncoding(widths[0]), nn.Linear(widths[0], features), nn.SiLU(), nn.Linear(features, features)
            )

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.unet(x, self.time(t))

    return TimeModulated()
