"""Whatever takes part in a race: training of a model on given images, step by step, and samples of its average.

Each project has its own loss, time distribution, optimizer settings and sampler, as its documentation shows them; the
batch size and the average of the weights are the same for all. Peers get the U-Net of `make bench`'s other suites.
"""

import copy
import io
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from score_lightning.bench.ours import build_step_on
from score_lightning.bench.peers import azula_net, denoising_diffusion_net, diffusers_net
from score_lightning.bench.settings import Size
from score_lightning.config import Resolved
from score_lightning.experiment.training_experiment import TrainingExperiment

BATCH = 64
SHARE = 0.1  # of the steps so far that an average of weights spans
EVALUATIONS = 50  # of a peer's sampler: DDIM's, in the projects that have it


@dataclass
class Racer:
    """A training that is under way.

    Args:
        model: what is averaged.
        step: takes a training step on uint8 images (B, C, H, W).
        sample: (model, n, seed) -> uint8 images (n, C, H, W).
        batch: images in a step.
        steps: taken so far.
    """

    model: nn.Module
    step: Callable[[Tensor], None]
    sample: Callable[[nn.Module, int, int], Tensor]
    batch: int = BATCH
    steps: int = 0

    def __post_init__(self) -> None:
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)

    @torch.enable_grad()
    def train(self, images: Tensor) -> None:
        """Takes a step and averages the weights over the last tenth of the steps."""
        self.step(images)
        self.steps += 1
        share = 1 / (1 + SHARE * self.steps)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)


def start_ours(resolved: Resolved) -> Racer:
    """An experiment of this project, with its batch size."""
    experiment = TrainingExperiment(resolved)
    module, generator = experiment.module, experiment.generator()
    batch: dict[str, Any] = {"step": 0}
    take = build_step_on(batch, module, resolved.config.optimizer.clip)

    def step(images: Tensor) -> None:
        batch["images"] = images
        take()

    def sample(model: Any, n: int, seed: int) -> Tensor:
        parts = torch.arange(n).split(generator.batch_size)
        return torch.cat([generator.batch(model, part.tolist(), seed).images for part in parts])

    return Racer(module.model, step, sample, resolved.config.trainer.batch_size)


def start_diffusers(size: Size, lr: float) -> Racer:
    """diffusers' example of unconditional generation, sampled with DDIM."""
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler

    net = diffusers_net(size)
    scheduler: Any = DDPMScheduler(1000)
    optimizer = torch.optim.AdamW(net.parameters(), lr, (0.95, 0.999), weight_decay=1e-6)

    def loss(x_0: Tensor) -> Tensor:
        noise, t = torch.randn_like(x_0), torch.randint(1000, (len(x_0),))
        return nn.functional.mse_loss(net(scheduler.add_noise(x_0, noise, t), t).sample, noise)

    def sample(net: Any, n: int) -> Tensor:
        pipeline: Any = DDIMPipeline(unet=net, scheduler=DDIMScheduler(1000))
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(n, num_inference_steps=EVALUATIONS, output_type="np").images
        return torch.from_numpy(images).movedim(3, 1) * 2 - 1

    return _peer(net, loss, optimizer, sample)


def start_denoising_diffusion(size: Size, lr: float) -> Racer:
    """denoising-diffusion-pytorch's trainer: v-prediction, the sigmoid schedule, DDIM."""
    from denoising_diffusion_pytorch import GaussianDiffusion

    diffusion = GaussianDiffusion(
        denoising_diffusion_net(size), image_size=size.shape[1], timesteps=1000, sampling_timesteps=EVALUATIONS
    )
    optimizer = torch.optim.Adam(diffusion.parameters(), lr, (0.9, 0.99))

    def sample(diffusion: Any, n: int) -> Tensor:
        with redirect_stderr(io.StringIO()):  # its progress bar
            images: Tensor = diffusion.sample(batch_size=n)
        return images * 2 - 1

    return _peer(diffusion, lambda x_0: diffusion((x_0 + 1) / 2), optimizer, sample)


def start_azula(size: Size, lr: float) -> Racer:
    """azula's denoiser with its variance preserving schedule, sampled with DDIM."""
    from azula.denoise import SimpleDenoiser
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    denoiser = SimpleDenoiser(azula_net(size), VPSchedule())
    optimizer = torch.optim.Adam(denoiser.parameters(), lr)

    def sample(denoiser: Any, n: int) -> Tensor:
        sampler = DDIMSampler(denoiser, steps=EVALUATIONS, silent=True)
        images: Tensor = sampler(sampler.init((n, *size.shape)))
        return images

    return _peer(denoiser, lambda x_0: denoiser.loss(x_0, torch.rand(len(x_0))).mean(), optimizer, sample)


def start_smalldiffusion(size: Size, lr: float) -> Racer:
    """smalldiffusion's U-Net, with its log-linear levels and its accelerated sampler."""
    from smalldiffusion import Scaled, ScheduleLogLinear, Unet, samples

    c = size.resolved.config
    settings = {"ch": c.net["channels"], "ch_mult": tuple(c.net["multipliers"]), "num_res_blocks": c.net["blocks"]}
    attention = tuple(c.net["attention"])
    net = Scaled(Unet)(size.shape[1], size.shape[0], size.shape[0], attn_resolutions=attention, **settings)
    levels = ScheduleLogLinear(800, sigma_min=0.01, sigma_max=20)
    optimizer = torch.optim.AdamW(net.parameters(), lr)

    def loss(x_0: Tensor) -> Tensor:
        sigma = levels.sample_batch(x_0).view(-1, 1, 1, 1)
        return net.get_loss(x_0, sigma, torch.randn_like(x_0))

    def sample(net: Any, n: int) -> Tensor:
        *_, images = samples(net, levels.sample_sigmas(20), gam=1.6, batchsize=n)
        return images

    return _peer(net, loss, optimizer, sample)


def _peer(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    sample: Callable[[Any, int], Tensor],
) -> Racer:
    """A training with gradients clipped to a norm of 1, from images and to samples in [-1, 1]."""
    parameters = list(model.parameters())
    model.train()

    def step(images: Tensor) -> None:
        optimizer.zero_grad()
        loss(images.float() / 127.5 - 1).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    @torch.no_grad()
    def quantized(model: nn.Module, n: int, seed: int) -> Tensor:
        torch.manual_seed(seed)
        parts = [sample(model, len(part)) for part in torch.arange(n).split(256)]
        return ((torch.cat(parts).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    return Racer(model, step, quantized)


PEERS: dict[str, tuple[Callable[[Size, float], Racer], float]] = {
    "diffusers": (start_diffusers, 1e-4),
    "denoising-diffusion-pytorch": (start_denoising_diffusion, 8e-5),
    "azula": (start_azula, 1e-3),
    "smalldiffusion": (start_smalldiffusion, 7e-4),
}
"""Name of a project -> (a new training of a size and a learning rate, the learning rate of its documentation)."""
