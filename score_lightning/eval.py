"""Evaluates a checkpoint, or pictures: python -m score_lightning.eval ckpt=PATH | images=DIR|NPZ reference=… ."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_lightning import cli, config
from score_lightning.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from score_lightning.images import ImageSet

OWN = {"ckpt": str, "images": str, "reference": str, "n": int, "seed": int, "out": str, "device": str}


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.eval ckpt=PATH [n=N] [sampler=NAME sampler.steps=N] [key=value …]
python -m score_lightning.eval images=DIR|NPZ reference=NAME|DIR|NPZ [key=value …]

Compares images with a reference by Fréchet distance and inception score; writes metrics.json, samples.png, report.html.
  ckpt=PATH                    draw images from this checkpoint with its averaged weights
  images=DIR|NPZ               or take these: a folder or zip of pictures, or images uint8 N x H x W x C in an npz
  reference=…                  a data set by name, a folder or zip of pictures, or an npz [the training images]
  n=N                          number of images [evaluation.n, or all that are given]
  seed=0                       image i is a function of the seed and i
  out=DIR                      where to write [the run folder of the checkpoint, or the current folder]
  device=auto                  auto, cpu, cuda, cuda:1, mps …

Every key of training changes the configuration inside the checkpoint; evaluation.* is also there for images=:
{config.describe()}"""


def main(words: Sequence[str]) -> None:
    """Evaluates what the words say."""
    own, rest = cli.take(words, OWN)
    if ("ckpt" in own) == ("images" in own):
        raise UserError("give either ckpt=PATH or images=DIR|NPZ (--help lists the keys)")
    if own.get("n", 2) < 2:
        raise UserError(f"n must be at least 2, got {own['n']}")
    if "ckpt" in own:
        _evaluate_checkpoint(own, rest)
    else:
        _evaluate_images(own, rest)


def _evaluate_checkpoint(own: dict[str, Any], rest: Sequence[str]) -> None:
    from score_lightning import build, checkpoint

    model, resolved, step = checkpoint.open_changed(own["ckpt"], rest)
    generator = build.build_generator(resolved)
    device = build.build_device(own.get("device", "auto"))
    model.to(device)
    n, seed = own.get("n", resolved.config.evaluation.n or 1000), own.get("seed", 0)
    settings = {
        "checkpoint": own["ckpt"],
        "step": step,
        "weights": "ema",
        "n": n,
        "seed": seed,
        "sampler": resolved.plain()["sampler"],
        "evaluations_per_image": generator.sampler.evaluations(model.schedule),
    }
    out = Path(own.get("out", checkpoint.run_folder_of(own["ckpt"])))
    _report(resolved, own.get("reference"), generator(model, n, seed, progress=True), settings, out, device)


def _evaluate_images(own: dict[str, Any], rest: Sequence[str]) -> None:
    from score_lightning import build

    if "reference" not in own:
        raise UserError("images=… needs reference=NAME|DIR|NPZ to compare with")
    images = build.read_images(own["images"])
    n = own.get("n", len(images))
    if not 2 <= n <= len(images):
        raise UserError(f"{own['images']} holds {len(images)} images; n must lie between 2 and that, got {n}")
    _, channels, size, width = images[:1].shape
    if size != width:
        raise UserError(f"{own['images']} holds images of {width} x {size} pixels; expected squares")
    plain = {"exp": "images", "images": {"size": size, "channels": channels}, "trainer": {"max_steps": 1}}
    resolved = config.change(plain, "images=" + own["images"], rest)
    device = build.build_device(own.get("device", "auto"))
    batches = _batches(images, n, resolved.config.evaluation.batch_size, device)
    settings = {"images": own["images"], "n": n}
    _report(resolved, own["reference"], batches, settings, Path(own.get("out", ".")), device)


def _batches(images: "ImageSet", n: int, size: int, device: Any) -> Iterator[tuple["Tensor", "Tensor"]]:
    import torch

    for indices in torch.arange(n).split(size):
        yield indices, images[indices].to(device)


def _report(
    resolved: config.Resolved,
    reference: str | None,
    batches: Iterable[tuple["Tensor", "Tensor"]],
    settings: dict[str, Any],
    out: Path,
    device: Any,
) -> None:
    import torch

    from score_lightning.build import build_reference
    from score_lightning.evaluation.evaluate import Evaluator, Rank, metric_device
    from score_lightning.evaluation.features import choose_features
    from score_lightning.evaluation.report import make_folder, save_grid, write_metrics, write_report

    c = resolved.config.evaluation
    compared, split = build_reference(resolved, reference)
    evaluator = Evaluator(choose_features(c.features, c.weights, *split), compared, c.splits)
    folder = make_folder(out.expanduser())
    shown: list[torch.Tensor] = []
    start = time.monotonic()
    metrics = evaluator(_keep(batches, shown), Rank(device=metric_device(device)), progress=True)
    settings |= {**evaluator.settings(), "reference": reference or resolved.plain()["data"]}
    settings["images_per_second"] = round(settings["n"] / (time.monotonic() - start), 2)
    save_grid(torch.cat(shown)[:100], folder / "samples.png")
    path = write_metrics(folder, metrics, settings)
    report = write_report(folder, f"{settings.get('checkpoint', settings.get('images'))}", metrics, settings)
    for name, value in metrics.items():
        print(f"{name} {value:.4f}")
    print(f"Written: {path}, {folder / 'samples.png'}, {report}")


def _keep(batches: Iterable[tuple["Tensor", "Tensor"]], shown: list["Tensor"]) -> Iterator[tuple["Tensor", "Tensor"]]:
    """The batches, the first of which are kept in `shown` for the picture."""
    for indices, images in batches:
        if sum(map(len, shown)) < 100:
            shown.append(images.cpu())
        yield indices, images


if __name__ == "__main__":
    cli.run(main, usage)
