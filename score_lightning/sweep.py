"""Several trainings in one command: python -m score_lightning.sweep exp=[a,b] seed=[0,1,2] [key=value …]."""

import csv
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_lightning import cli, config
from score_lightning.errors import UserError
from score_lightning.runtime.signals import SIGNALS


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.sweep exp=NAME|[NAME,…] [key=value|key=[value,…] …]

Trains every combination of the values in lists, one after another, each as train does with resume=auto: a sweep that
was stopped goes on with the same command. Ends with a table of what came out, kept as sweep.csv in the folder of runs.
Lists of settings that are lists themselves are doubled: optimizer.betas=[[0.9,0.99],[0.9,0.999]].

experiments: {", ".join(config.experiments())}"""


def main(words: Sequence[str]) -> None:
    """Trains what the words say."""
    points = plan(words)
    rows = []
    for i, (label, given) in enumerate(points):
        print(f"\n[{i + 1} of {len(points)}] {label}", flush=True)
        code = _train(given)
        if code in (130, cli.RESUMABLE):
            sys.exit(code)
        rows.append({"training": label, "state": "done" if code == 0 else f"failed ({code})", **_result(given)})
    out = Path(_base(words)).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (out / "sweep.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)
    print("\n" + "\n".join("  ".join(f"{key}={value}" for key, value in row.items()) for row in rows))
    print(f"\nAll of it: {out / 'sweep.csv'}")
    if any(row["state"] != "done" for row in rows):
        raise UserError("not every training was finished; what went wrong stands above")


def _train(words: Sequence[str]) -> int:
    """The exit code of a training, to which signals to this process are sent on."""
    process = subprocess.Popen([sys.executable, "-m", "score_lightning.train", *words, "resume=auto"])
    before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in SIGNALS}
    try:
        return process.wait()
    except KeyboardInterrupt:  # which the training gets, too
        process.wait()
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def plan(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(label, words) of every training: the product of all lists, each with a folder of runs of its own.

    Raises:
        UserError: when a word is wrong for any of them, before the first begins.
    """
    same, swept = [], []
    for word in words:
        key, value = config.parse_word(word)
        if isinstance(value, list) and (not _is_list(key) or any(isinstance(item, list) for item in value)):
            if not value:
                raise UserError(f"{key}: the list is empty")
            swept.append([f"{key}={_text(item)}" for item in value])
        else:
            same.append(word)
    points = []
    for point in itertools.product(*swept):
        exp = dict(word.split("=", 1) for word in [*same, *point]).get("exp")
        if exp is None:
            raise UserError(f"exp=NAME is missing; experiments: {', '.join(config.experiments())}")
        label = " ".join(point) or f"exp={exp}"
        rest = [word for word in [*same, *point] if not word.startswith(("exp=", "out="))]
        own = "_".join(word.replace("/", "-") for word in point if not word.startswith("exp="))
        given = [f"exp={exp}", *rest, f"out={Path(_base(words)) / own}"]
        config.load(given[1:], exp)
        points.append((label, given))
    return points


def _base(words: Sequence[str]) -> str:
    """The folder of all runs."""
    return next((word[4:] for word in reversed(words) if word.startswith("out=")), "runs")


def _is_list(key: str) -> bool:
    """Whether a setting is a list itself, by its default."""
    value: Any = config.defaults()
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return isinstance(value, list)


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, list | bool) or value is None else str(value)


def _folder(words: Sequence[str]) -> Path:
    return Path(next(word[4:] for word in words if word.startswith("out="))).expanduser()


def _result(words: Sequence[str]) -> dict[str, Any]:
    """The metrics of a training's newest run."""
    exp = next(word[4:] for word in words if word.startswith("exp="))
    found = sorted((_folder(words) / Path(exp).stem).glob("*/metrics.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        return {}
    metrics = json.loads(found[-1].read_text())
    return {key: f"{value:.4g}" for key, value in metrics.items() if isinstance(value, float)}


if __name__ == "__main__":
    cli.run(main, usage)
