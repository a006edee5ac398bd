"""All commands in one: score-lightning COMMAND [key=value …], or python -m score_lightning COMMAND."""

import sys
from collections.abc import Sequence
from importlib import import_module

from score_lightning import cli, config
from score_lightning.errors import UserError

COMMANDS = {
    "train": "trains an experiment",
    "sweep": "trains several, one after another",
    "sample": "draws images from a checkpoint",
    "eval": "evaluates a checkpoint, or pictures",
    "export": "writes a checkpoint for other programs",
    "import_weights": "turns published weights into a checkpoint",
    "suggest_noise": "suggests noise levels for data",
    "experiments": "lists the experiments",
}


def usage() -> str:
    """The text of --help."""
    listed = "\n".join(f"  {name:28} {what}" for name, what in COMMANDS.items())
    return f"""score-lightning COMMAND [key=value …]

{listed}

score-lightning COMMAND --help explains one; python -m score_lightning.COMMAND is the same command."""


def _refuse(arguments: Sequence[str]) -> None:
    if not arguments:
        raise UserError(f"which command? {', '.join(COMMANDS)} (--help explains them)")
    name = arguments[0]
    raise UserError(f"unknown command {name!r}{config.suggest(name, COMMANDS)}; there are {', '.join(COMMANDS)}")


def main() -> None:
    """Runs the command that the first argument names with the others."""
    name, rest = "".join(sys.argv[1:2]), sys.argv[2:]
    if name in COMMANDS:
        command = import_module(f"score_lightning.{name}")
        cli.run(command.main, command.usage, rest)
    else:
        cli.run(_refuse, usage)


if __name__ == "__main__":
    main()
