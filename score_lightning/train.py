"""Trains an experiment: python -m score_lightning.train exp=NAME [key=value …]."""

from collections.abc import Sequence

from score_lightning import cli, config
from score_lightning.runtime.signals import stop_at_signals

OPTIONS = {"exp": str, "dry_run": bool, "resume": str}


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.train exp=NAME [key=value …]

Trains an experiment and writes runs/<experiment>/<version>/.
  dry_run=true                 print the resolved configuration and the number of parameters, and stop
  resume=auto                  resume from the newest checkpoint of this experiment with these settings, or start
  resume=FILE                  resume from a checkpoint in a new folder (without exp: with its configuration)
  init=FILE                    start from the averaged weights of a checkpoint, also of an imported one
  figure=NAME                  of a toy experiment: the figure that is drawn after training (null: none)

experiments: {", ".join(config.experiments())}

keys [default]:
{config.describe()}"""


def main(arguments: Sequence[str], parts: config.Parts | None = None) -> None:
    """Trains what key=value arguments ask for, with parts of the user's own."""
    options, overrides = cli.split_arguments(arguments, OPTIONS)
    with stop_at_signals():
        from score_lightning.experiment.train import train

        train(options, overrides, parts)


if __name__ == "__main__":
    cli.run(main, usage)
