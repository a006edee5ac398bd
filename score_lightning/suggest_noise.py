"""Suggests noise levels for data: python -m score_lightning.suggest_noise data=NAME [data.path=…] [key=value …]."""

from collections.abc import Sequence

from score_lightning import cli, config
from score_lightning.errors import UserError

OPTIONS = {"exp": str, "sigma_min": float, "steps": int, "n": int}


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.suggest_noise data=NAME [data.path=…] [images.size=32 images.channels=3]
python -m score_lightning.suggest_noise exp=NAME

Applies NCSNv2's techniques 1, 2 and 4 to the training images: the largest noise, the number of levels from it to the
smallest, and the step of annealed Langevin dynamics, as words to paste behind `make train EXP=ncsn_… ARGS=`.
  exp=ncsn_cifar               whose images, range of pixels and settings are meant
  sigma_min=0.01               the smallest noise
  steps=5                      Langevin steps at each level
  n=N                          how many images to compare with each other, the first ones [all]

Every key of training changes the experiment: {", ".join(config.experiments())}"""


def main(words: Sequence[str]) -> None:
    """Suggests what the words ask for."""
    own, rest = cli.split_arguments(words, OPTIONS)
    sigma_min, steps = own.get("sigma_min", 0.01), own.get("steps", 5)
    if not sigma_min > 0 or steps < 1 or own.get("n", 2) < 2:
        raise UserError(f"sigma_min must be positive, steps at least 1 and n at least 2, got {own}")
    resolved = config.load(rest, own.get("exp", "ncsn_cifar"))

    import torch

    from score_lightning.experiment import build
    from score_lightning.schedules import tuning

    pixels = build.build_pixels(resolved.config)
    images, _ = build.build_images(resolved)
    n = min(own.get("n", len(images)), len(images))
    x = torch.cat([pixels.encode(images[part]).flatten(1) for part in torch.arange(n).split(1000)])
    sigma_max = tuning.largest_distance(x, progress=True)
    if sigma_max <= sigma_min:
        raise UserError(f"all images are alike: their largest distance is {sigma_max:.3g}")
    sigma_max = float(f"{sigma_max:.3g}")
    levels = tuning.count_levels(sigma_min, sigma_max, x.shape[1])
    step_size = tuning.choose_step(sigma_min, sigma_max, levels, steps)
    print(f"{n} images of {x.shape[1]} dimensions in [{pixels.low:g}, {pixels.high:g}]")
    print(f"  sigma_1     {sigma_max:<10g} the largest distance between two of them (technique 1)")
    print(f"  L           {levels:<10} levels down to {sigma_min:g}, neighbors overlapping by 0.5 (technique 2)")
    print(f"  step size   {step_size:<10.3g} for {steps} steps at each level (technique 4)")
    noise = f"schedule=geometric schedule.sigma_min={sigma_min:g} schedule.sigma_max={sigma_max:g}"
    sampling = f"sampler=annealed_langevin sampler.step_size={step_size:.3g} sampler.steps={steps}"
    print(f"\nTo paste:\n{noise} schedule.levels={levels} {sampling}")


if __name__ == "__main__":
    cli.run(main, usage)
