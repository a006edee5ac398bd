"""Lists the experiments: python -m score_lightning.experiments."""

from collections.abc import Sequence

from score_lightning import cli, config
from score_lightning.errors import UserError


def usage() -> str:
    """The text of --help."""
    return """python -m score_lightning.experiments [NAME …]

Lists the experiments whose names start so, or all: data, parameters of the network, method, published result.
Your own, ./experiments/NAME.yaml of the working directory, come first and are shown with their folder."""


def main(prefixes: Sequence[str]) -> None:
    """Prints the list."""
    names = [name for name in config.experiments() if not prefixes or name.startswith(tuple(prefixes))]
    if not names:
        known = ", ".join(config.experiments())
        raise UserError(f"no experiment starts with {' or '.join(prefixes)}; there are {known}")

    from score_lightning.experiment.catalog import table

    print(table(names))


if __name__ == "__main__":
    cli.run(main, usage)
