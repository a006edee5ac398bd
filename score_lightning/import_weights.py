"""Turns published weights into a checkpoint: python -m score_lightning.import_weights path=FILE exp=RECIPE out=FILE."""

from collections.abc import Sequence
from pathlib import Path

from score_lightning import cli, config
from score_lightning.errors import UserError

OPTIONS = {"format": str, "path": str, "exp": str, "out": str}
NAMES = ("ncsn", "ncsnv2", "ddim", "score_sde", "improved-diffusion", "guided-diffusion", "diffusers", "edm")


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.import_weights path=FILE exp=RECIPE [key=value …]

Turns weights that were published elsewhere into a checkpoint for eval, sample, export and train init=.
  path=FILE            the published file, the index of several (….index.json), or the folder of a diffusers pipeline;
                       no code in it is run
  exp=RECIPE           experiment that the weights belong to: its network, noise levels and prediction
  format={"|".join(NAMES)}
                       the layout of the file; detected where it is left out
  out=FILE.ckpt        the checkpoint [RECIPE.ckpt]
  KEY=VALUE            changes the recipe, as in train: net.channels=64

Averaged weights are taken where the file has them, of a diffusers folder those in unet_ema/. Of its variants the one
in full precision is read first. The network's settings are taken from there, too.

experiments: {", ".join(config.experiments())}"""


def main(overrides: Sequence[str]) -> None:
    """Imports the weights that the options name."""
    options, overrides = cli.split_arguments(overrides, OPTIONS, required=("path", "exp"))
    name, exp = options.get("format"), options["exp"]
    if name is not None and name not in NAMES:
        raise UserError(f"unknown format {name!r}{config.suggest(name, NAMES)}; there are {', '.join(NAMES)}")
    out = Path(options.get("out", f"{Path(exp).stem}.ckpt")).expanduser()
    resolved = config.load(overrides, exp)

    from score_lightning.experiment.importing import import_weights

    import_weights(resolved, Path(options["path"]).expanduser(), out, name)
    print(f"Next: python -m score_lightning.sample ckpt={out} n=16 out=samples")
    print(f"  or: {'python -m score_lightning.eval ckpt' if config.INSTALLED else 'make eval CKPT'}={out}")


if __name__ == "__main__":
    cli.run(main, usage)
