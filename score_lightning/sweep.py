"""Several trainings in one command: python -m score_lightning.sweep exp=[a,b] seed=[0,1,2] [key=value …]."""

import sys
from collections.abc import Sequence

from score_lightning import cli, config
from score_lightning.experiment.sweeping import run_sweep


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.sweep exp=NAME|[NAME,…] [key=value|key=[value,…] …]

Trains every combination of the values in lists, one after another, each as train does with resume=auto: the same
command resumes a sweep that was stopped. Ends with a table of the results, kept as sweep.csv in the folder of runs.
Lists of settings that are lists themselves are doubled: optimizer.betas=[[0.9,0.99],[0.9,0.999]].

experiments: {", ".join(config.experiments())}"""


def main(overrides: Sequence[str]) -> None:
    """Trains every combination."""
    code = run_sweep(overrides)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    cli.run(main, usage)
