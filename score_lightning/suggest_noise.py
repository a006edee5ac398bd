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
smallest, and the step of annealed Langevin dynamics, as overrides to paste behind `make train EXP=ncsn_… ARGS=`.
  exp=ncsn_cifar               whose images, range of pixels and settings are meant
  sigma_min=0.01               the smallest noise
  steps=5                      Langevin steps at each level
  n=N                          how many images to compare with each other, the first ones [all]

Every key of training changes the experiment: {", ".join(config.experiments())}"""


def main(overrides: Sequence[str]) -> None:
    """Prints noise levels for the images of a configuration."""
    options, overrides = cli.split_arguments(overrides, OPTIONS)
    sigma_min, steps = options.get("sigma_min", 0.01), options.get("steps", 5)
    if not sigma_min > 0 or steps < 1 or options.get("n", 2) < 2:
        raise UserError(f"sigma_min must be positive, steps at least 1 and n at least 2, got {options}")
    resolved = config.load(overrides, options.get("exp", "ncsn_cifar"))

    from score_lightning.experiment.noise import suggest_noise

    print(suggest_noise(resolved, sigma_min, steps, options.get("n")))


if __name__ == "__main__":
    cli.run(main, usage)
