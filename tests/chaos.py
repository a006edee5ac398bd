"""Kills a training again and again, at random moments, and compares what comes out with an uninterrupted one.

    python tests/chaos.py [kills=20] [processes=1] [steps=400] [out=DIR]     the same to the bit
    python tests/chaos.py elastic=true [steps=300]                          one process, two, and one again

A third of the kills wait for a checkpoint that is being written. Exits with 1 where anything differs.
"""

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
EXPERIMENT = "ddpm_digits"
WORDS = [
    "trainer.accelerator=cpu", "trainer.batch_size=16", "trainer.accumulate=2", "trainer.log_every=1",
    "trainer.checkpoint_every=7", "trainer.progress=false", "trainer.keep=2", "validation.every=20", "validation.n=20",
    "samples.n=4", "samples.every=40", "evaluation.n=20", "evaluation.every=40", "preview.steps=2", "logger=off",
]  # fmt: skip


def command(out, words, processes=1):
    """A training that resumes where it was killed."""
    program = [sys.executable, str(HERE / "recorded_training.py")]
    return [*program, f"exp={EXPERIMENT}", *WORDS, f"trainer.devices={processes}", f"out={out}", "resume=auto", *words]


def start(out, words, processes=1):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment.setdefault("SCORE_LIGHTNING_CACHE", str(Path(out).parent / "cache"))
    log = Path(out).with_suffix(".log").open("ab")
    return subprocess.Popen(
        command(out, words, processes), env=environment, stdout=log, stderr=log, start_new_session=True
    )


def finish(out, words, processes=1):
    """Runs to the end."""
    code = start(out, words, processes).wait()
    assert code == 0, f"exit code {code}:\n{Path(out).with_suffix('.log').read_text()[-3000:]}"


def folder_of(out):
    (folder,) = (Path(out) / EXPERIMENT).iterdir()
    return folder


def kill(process, out, rng):
    """Kills a training and all its processes after it has begun; returns whether it was running."""
    checkpoints = Path(out) / EXPERIMENT / "0/checkpoints"
    log, begun = Path(out).with_suffix(".log"), time.monotonic()
    seen = log.stat().st_size
    while process.poll() is None and time.monotonic() - begun < 120:
        # a line in the log says that it resumes; the first training has a folder of checkpoints in the end
        if log.stat().st_size > seen or (seen == 0 and checkpoints.is_dir()):
            break
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 7))
    if rng.random() < 0.34:
        begun = time.monotonic()
        before = set(checkpoints.glob(".*"))
        while process.poll() is None and time.monotonic() - begun < 10 and before >= set(checkpoints.glob(".*")):
            time.sleep(0.001)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def differences(one, other):
    """What differs between the last checkpoints and the logs of two runs."""
    a, b = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (one, other))
    found = [key for key in ("global_step", "lr_schedulers") if a[key] != b[key]]
    found += [name for name, value in a["state_dict"].items() if not torch.equal(value, b["state_dict"][name])]
    for (number, first), (_, second) in zip(
        a["optimizer_states"][0]["state"].items(), b["optimizer_states"][0]["state"].items(), strict=True
    ):
        found += [f"optimizer {number} {key}" for key, v in first.items() if not torch.equal(v, second[key])]
    if (one / "metrics.csv").read_text() != (other / "metrics.csv").read_text():
        found.append("metrics.csv")
    return found


def chaos(kills, processes, steps, base):
    """The number of kills that hit a running training, and what differs at the end."""
    rng, words = random.Random(processes), [f"trainer.max_steps={steps}", "net.dropout=0.1"]
    finish(base / "whole", words, processes)
    hits = 0
    while hits < kills and kill(start(base / "killed", words, processes), base / "killed", rng):
        hits += 1
    finish(base / "killed", words, processes)
    return hits, differences(folder_of(base / "whole"), folder_of(base / "killed"))


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def elastic(steps, base):
    """The largest relative difference of losses between one process and one, two and one; and of what they saw."""
    words = ["trainer.accumulate=1", "optimizer.decay=false", "net.dropout=0"]
    finish(base / "one", [*words, f"trainer.max_steps={steps}"])
    for processes, end in ((1, steps // 3), (2, 2 * steps // 3), (1, steps)):
        finish(base / "changing", [*words, f"trainer.max_steps={end}"], processes)
    one, changing = losses(folder_of(base / "one")), losses(folder_of(base / "changing"))
    assert one.keys() == changing.keys()
    records = [(base / name).with_suffix(".seen").read_text().splitlines() for name in ("one", "changing")]
    return max(abs(changing[step] / loss - 1) for step, loss in one.items()), sorted(records[0]) == sorted(records[1])


def main(words):
    given = dict(word.split("=", 1) for word in words)
    base = Path(given.get("out") or tempfile.mkdtemp(prefix="chaos-"))
    base.mkdir(parents=True, exist_ok=True)
    if given.get("elastic") == "true":
        difference, same = elastic(int(given.get("steps", 300)), base)
        print(f"1 -> 2 -> 1 processes: losses within {difference:.1e}, order, times and noise the same: {same}")
        return int(difference > 1e-4 or not same)
    kills, processes = int(given.get("kills", 20)), int(given.get("processes", 1))
    hits, different = chaos(kills, processes, int(given.get("steps", 400)), base)
    verdict = "the same to the bit" if not different else f"{len(different)} things differ: {different[:5]}"
    print(f"{processes} process(es), {hits} of {kills} kills before it was done: {verdict}")
    return int(bool(different) or hits < kills)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
