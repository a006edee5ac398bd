"""How good pictures are after seconds of training, side by side with four projects on the same cores.

A line is one training at a constant learning rate, whose averaged weights are judged at each mark; the time for drawing
and judging does not count. Each project has the settings of its documentation and, as a second line, the best of three
learning rates. Peers' networks are U-Nets of 32 (digits) and 64 (MNIST) channels. Digits are judged by a support vector
machine and in pixels, MNIST by the project's classifier of it. What was measured is kept in the cache folder, so that
an interrupted race goes on.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from score_lightning import config
from score_lightning.bench.judges import Judge, judge_features, judge_pixels
from score_lightning.bench.machine import describe
from score_lightning.bench.racers import PEERS, Racer, start_ours
from score_lightning.bench.settings import OURS, Settings, Size
from score_lightning.bench.tables import Curves, LeftOut, Row, Table, plain
from score_lightning.data.sources import Split
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.runtime.files import cache_folder, write_text

RATES = (1e-3, 3e-3, 1e-2)
SEARCH = 60.0  # seconds at each of these learning rates


@dataclass(frozen=True)
class Track:
    """A data set to race on.

    Args:
        name: of the data set.
        data: overrides that name it.
        peer: overrides of an experiment of it that give the network of peers.
        marks: seconds of training after which pictures are judged.
        seeds: of trainings.
        n: pictures that are judged.
    """

    name: str
    data: tuple[str, ...]
    peer: tuple[str, ...]
    marks: tuple[float, ...]
    seeds: int
    n: int


@dataclass(frozen=True)
class Mark:
    """What was judged after `seconds` of training; `sampling` is in seconds per 1,000 pictures."""

    seconds: float
    score: float
    distance: float
    sampling: float
    steps: int


Lines = dict[str, list[list[Mark]]]
"""Name of a line -> the marks of each seed."""
Start = Callable[[int], Racer]
"""seed -> a new training."""


def run(settings: Settings) -> list[Table]:
    """Two tables for each data set, one per judged number."""
    digits = Track("digits", (), ("net=unet_tiny",), (30, 60, 120, 240), 3, 1797)
    tracks = [digits]
    if settings.npz:
        data = ("data=npz", f"data.path={settings.npz}", "data.validation=0.1")
        tracks.append(Track("mnist", data, ("net=unet_small", "net.dropout=0.0"), (120, 300, 600), 1, 1000))
    if settings.quick:
        tracks = [Track("digits", (), ("net=unet_tiny",), (0.5, 1.0), 2, 64)]
    return [table for track in tracks for table in _tables(track, 0.5 if settings.quick else SEARCH)]


def _tables(track: Track, search: float) -> Iterator[Table]:
    experiments = [name for name in config.experiments() if _races(name, track)]
    if not experiments:
        raise LeftOut(f"no experiment has the data set {track.name}")
    split = Experiment(config.load([*track.data, "logger=off"], experiments[0]), training=True).split
    judge = _judge(track, split)
    real = judge(split[0][:])
    lines: Lines = {}
    for name, start in _starts(track, experiments, split, judge, search):
        lines[name] = [_measure(name, start, track, split, judge, seed) for seed in range(track.seeds)]
    for field, title, more in (("score", "inception score", True), ("distance", "Fréchet distance", False)):
        yield _table(track, lines, field, title, more, real[0] if more else None)


def _races(name: str, track: Track) -> bool:
    """Whether an experiment is without labels and of the data set."""
    c = config.load([], name).config
    return c.data.get("name") == track.name and c.labels.classes is None


def _judge(track: Track, split: Split) -> Judge:
    if track.name != "digits":
        return judge_features(*split)
    images = torch.cat([part[:] for part in split])
    labels = torch.cat([part.labels for part in split if part.labels is not None])
    return judge_pixels(images, labels, 1200)


def _starts(
    track: Track, experiments: Sequence[str], split: Split, judge: Judge, search: float
) -> Iterator[tuple[str, Start]]:
    """The name of each line, and its start."""
    for name in experiments:
        yield f"{OURS}: {name}", partial(_start_ours, name, track.data)
    size = Size(track.name, experiments[0], (*track.data, *track.peer, "logger=off"), 64)
    brief = replace(track, marks=(search,), seeds=1, n=min(track.n, 500))
    for name, (start, documented) in PEERS.items():
        try:
            start(size, documented)
        except ModuleNotFoundError as error:
            print(f"  {name} is left out: the package {error.name} is not installed", flush=True)
            continue
        yield f"{name}, lr {documented:g}", partial(_start_peer, start, size, documented)
        distances = {}
        for rate in RATES:
            (mark,) = _measure(f"{name}, lr {rate:g}", partial(_start_peer, start, size, rate), brief, split, judge, 0)
            distances[rate] = mark.distance
        best = min(RATES, key=distances.__getitem__)
        yield f"{name}, best lr {best:g}", partial(_start_peer, start, size, best)


def _start_ours(name: str, data: Sequence[str], seed: int) -> Racer:
    return start_ours(config.load([*data, "logger=off", f"seed={seed}"], name))


def _start_peer(start: Callable[[Size, float], Racer], size: Size, rate: float, seed: int) -> Racer:
    torch.manual_seed(seed)
    return start(size, rate)


def _measure(name: str, start: Start, track: Track, split: Split, judge: Judge, seed: int) -> list[Mark]:
    """The marks of a line, from the cache where they were measured on such a machine before."""
    racer = start(seed)
    facts = {key: value for key, value in describe("cpu").items() if key != "date"}
    key = [name, asdict(track), seed, split[0].sha256, str(racer.model), racer.batch, facts]
    path = cache_folder() / "race" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if path.is_file():
        try:
            return [Mark(**mark) for mark in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError):
            print(f"  {path} is damaged and measured again", flush=True)
    marks = list(_race(racer, track, split[0][:], judge, seed))
    for mark in marks:
        numbers = f"inception score {mark.score:.3f}, Fréchet distance {mark.distance:.3f}, {mark.steps} steps"
        print(f"  {track.name}: {name}, seed {seed}, {mark.seconds:g} s: {numbers}", flush=True)
    try:
        write_text(path, json.dumps([asdict(mark) for mark in marks]))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}. Set SCORE_LIGHTNING_CACHE") from error
    return marks


def _race(racer: Racer, track: Track, images: torch.Tensor, judge: Judge, seed: int) -> Iterator[Mark]:
    order, trained = torch.Generator().manual_seed(seed), 0.0
    for seconds in track.marks:
        start = time.perf_counter()
        while (passed := trained + time.perf_counter() - start) < seconds:
            racer.train(images[torch.randint(len(images), (racer.batch,), generator=order)])
        trained = passed
        start = time.perf_counter()
        drawn = racer.sample(racer.average, track.n, seed)
        sampling = (time.perf_counter() - start) / track.n * 1000
        yield Mark(seconds, *judge(drawn), sampling, racer.steps)


def _table(track: Track, lines: Lines, field: str, title: str, more: bool, real: float | None) -> Table:
    rows: list[Row] = []
    points: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for name, seeds in lines.items():
        points[name], bands[name] = [], []
        for marks in zip(*seeds, strict=True):
            values = [getattr(mark, field) for mark in marks]
            seconds, mean = marks[0].seconds, statistics.fmean(values)
            note = f"{plain(statistics.fmean(mark.sampling for mark in marks))} s to draw 1,000"
            peer = not name.startswith(OURS)
            rows.append(Row(f"{name}, {seconds:g} s", mean, min(values), max(values), peer, note=note))
            points[name].append((seconds, mean))
            bands[name].append((seconds, min(values), max(values)))
    curves = Curves("seconds of training", title, points, log_y=not more, bands=bands)
    note = f"Real pictures: {plain(real)}." if real is not None else ""
    heading = f"{title[0].upper()}{title[1:]} of {track.name} after seconds of training"
    return Table(heading, title, rows, more=more, note=note, curves=[curves])
