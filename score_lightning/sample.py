"""Draws images from a checkpoint: python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]."""

from collections.abc import Sequence
from pathlib import Path

from score_lightning import cli, config
from score_lightning.errors import UserError

OWN = {
    "ckpt": str, "n": int, "out": str, "seed": int, "batch_size": int, "weights": str, "device": str, "devices": int,
}  # fmt: skip


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.sample ckpt=PATH [n=64] [out=DIR] [key=value …]

Writes samples.png and samples.npz (images uint8 N x H x W x C). If it is stopped, the same command goes on.
  ckpt=PATH                    the checkpoint
  n=64                         number of images
  out=DIR                      where to write [the run folder of the checkpoint]
  seed=0                       image i is a function of the seed and i
  batch_size=256               images sampled at once
  weights=ema                  ema (the averaged weights) or raw
  device=auto                  auto, cpu, cuda, cuda:1, mps …
  devices=1                    processes on this machine; or use torchrun

Every key of training changes the configuration inside the checkpoint, such as sampler=ddim sampler.steps=50:
{config.describe()}"""


def main(words: Sequence[str]) -> None:
    """Draws what the words say."""
    own, rest = cli.take(words, OWN, required=["ckpt"])
    n, batch_size, processes = own.get("n", 64), own.get("batch_size", 256), own.get("devices", 1)
    if n < 1 or batch_size < 1 or processes < 1:
        raise UserError(f"n, batch_size and devices must be at least 1, got {n}, {batch_size} and {processes}")

    import numpy as np
    import torch

    from score_lightning import build, checkpoint
    from score_lightning.checkpoint import image_key
    from score_lightning.evaluation.metrics import InOrder
    from score_lightning.evaluation.pictures import save_grid
    from score_lightning.evaluation.report import make_folder
    from score_lightning.generate import BatchStore, refuse_broken
    from score_lightning.processes import find_device, launch

    model, resolved, _ = checkpoint.open_changed(own["ckpt"], rest, own.get("weights", "ema"))
    generator = build.build_generator(resolved, batch_size=batch_size)
    device = find_device(own.get("device", "auto"))
    folder = make_folder(Path(own.get("out", checkpoint.run_folder_of(own["ckpt"]))).expanduser())
    rank, device = launch(device, processes)
    seed = own.get("seed", 0)
    store = BatchStore(folder, image_key(model, resolved, generator, seed, device))
    drawn, broken = InOrder(torch.empty(generator.shape, dtype=torch.uint8)).to(rank.device), []
    for batch in generator(model.to(device), n, seed, rank, rank.number == 0, store):
        drawn.update(batch.images, batch.indices)
        broken += batch.indices[~batch.finite].tolist()
    refuse_broken([i for part in rank.gather(broken) for i in part], n)
    images = drawn.compute().cpu()
    if rank.number == 0:
        np.savez_compressed(folder / "samples.npz", images=images.permute(0, 2, 3, 1).numpy())
        save_grid(images[:100], folder / "samples.png")
        store.clear()
        print(f"Drew {n} images: {folder / 'samples.png'} (the first {min(n, 100)}) and {folder / 'samples.npz'} (all)")


if __name__ == "__main__":
    cli.run(main, usage)
