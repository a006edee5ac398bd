"""How good pictures are after seconds of training, side by side with four projects on the same cores.

A line is one training at a constant learning rate, whose averaged weights are judged at each mark. All run on one core,
and seconds are those of its processor time, so that other programs matter little; drawing and judging do not count.
Ours are the experiments of the data set with the light network. Each peer has a U-Net of 32 channels, the settings of
its documentation and, as a second line, the best of three learning rates. Digits are judged by a support vector machine
and in pixels, MNIST by the project's classifier of it. What was measured is kept in the cache folder, so that an
interrupted race continues; our own lines are measured again after a change of the code.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from score_lightning import config
from score_lightning.bench.judges import Judge, judge_features, judge_pixels
from score_lightning.bench.machine import describe
from score_lightning.bench.racers import BATCH, PEERS, Racer, start_ours
from score_lightning.bench.settings import OURS, Settings, Size
from score_lightning.bench.tables import Curves, Row, Table, plain
from score_lightning.bench.timing import one_core
from score_lightning.data.sources import Split
from score_lightning.errors import UserError
from score_lightning.experiment.training_experiment import TrainingExperiment
from score_lightning.runtime.files import cache_folder, sha256_of_file, write_text

RATES = (1e-3, 3e-3, 1e-2)  # of which a peer's second line has the best
PACKAGE = Path(__file__).parents[1]
OTHER_ROOMS = ("evaluation", "figures", "formats", "tracking")  # which neither a training nor its samples depend on


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
        search: seconds for which each learning rate is tried.
    """

    name: str
    data: tuple[str, ...]
    peer: tuple[str, ...]
    marks: tuple[float, ...]
    seeds: int
    n: int
    search: float = 60.0


@dataclass(frozen=True)
class Mark:
    """What was judged after `seconds` of training; `sampling` is in seconds per 1,000 pictures."""

    seconds: float
    score: float
    distance: float
    sampling: float
    steps: int


@dataclass(frozen=True)
class Line:
    """A training that is repeated with several seeds.

    Args:
        name: of the line.
        start: seed -> a new training.
        key: all that its result depends on besides the track and the machine.
    """

    name: str
    start: Callable[[int], Racer]
    key: str


Results = dict[str, list[list[Mark]]]
"""Name of a line -> the marks of each seed."""


def run(settings: Settings) -> list[Table]:
    """Two tables for each data set, one per judged number."""
    tracks = [Track("digits", (), ("net=unet_tiny",), (30, 60, 120, 240), 3, 1797)]
    if settings.npz:
        data = ("data=npz", f"data.path={settings.npz}", "data.validation=0.1")
        tracks.append(Track("mnist", data, ("net=unet_tiny", "net.attention=[14]"), (120, 300, 600), 1, 500))
    if settings.quick:
        tracks = [replace(track, marks=(0.5, 1.0), seeds=2, n=64, search=0.5) for track in tracks]
    with one_core():
        return [table for track in tracks for table in _tables(track)]


def _tables(track: Track) -> Iterator[Table]:
    experiments = [name for name in config.experiments() if _races(name, track)]
    split = TrainingExperiment(config.load([*track.data, "logger=off"], experiments[0])).split
    judge = _judge(track, split)
    results: Results = {}
    for line in _lines(track, experiments, split, judge):
        results[line.name] = [_measure(line, track, split, judge, seed) for seed in range(track.seeds)]
    real = f"The score of real pictures is {plain(judge(split[0][:])[0])}."
    yield _table(track, results, "score", "inception score", real)
    yield _table(track, results, "distance", "Fréchet distance")


def _races(name: str, track: Track) -> bool:
    """Whether an experiment is of the data set, with the light network and without labels."""
    c = config.load([], name).config
    return c.data.get("name") == track.name and c.net["name"] == "unet_light" and c.labels.classes is None


def _judge(track: Track, split: Split) -> Judge:
    if track.name != "digits":
        return judge_features(*split)
    images = torch.cat([part[:] for part in split])
    labels = torch.cat([part.labels for part in split if part.labels is not None])
    return judge_pixels(images, labels, 1200)


def _lines(track: Track, experiments: Sequence[str], split: Split, judge: Judge) -> Iterator[Line]:
    code = _code()
    for name in experiments:
        overrides = [*track.data, "logger=off", "optimizer.decay=false"]
        settings = json.dumps(config.load(overrides, name).plain())
        yield Line(f"{OURS}: {name}", partial(_start_ours, name, overrides), settings + code)
    size = Size(track.name, experiments[0], (*track.data, *track.peer, "logger=off"), BATCH)
    brief = replace(track, marks=(track.search,), seeds=1, n=min(track.n, 500))
    for name, (start, documented) in PEERS.items():
        if find_spec(name.replace("-", "_")) is None:
            print(f"  {name} is left out: the package is not installed", flush=True)
            continue
        yield _peer_line(name, start, size, documented)
        distances = {}
        for rate in RATES:
            (mark,) = _measure(_peer_line(name, start, size, rate), brief, split, judge, 0)
            distances[rate] = mark.distance
        best = min(RATES, key=distances.__getitem__)
        line = _peer_line(name, start, size, best)
        yield replace(line, name=f"{name}, best lr {best:g}")


def _code() -> str:
    """SHA-256 of the code that a training and its samples depend on."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in OTHER_ROOMS:
            continue
        digest.update(sha256_of_file(path).encode())
    return digest.hexdigest()


def _start_ours(name: str, overrides: Sequence[str], seed: int) -> Racer:
    return start_ours(config.load([*overrides, f"seed={seed}"], name))


def _peer_line(name: str, start: Callable[[Size, float], Racer], size: Size, rate: float) -> Line:
    def seeded(seed: int) -> Racer:
        torch.manual_seed(seed)
        return start(size, rate)

    return Line(f"{name}, lr {rate:g}", seeded, f"{name} {rate} {size.resolved.config.net} {size.shape}")


def _measure(line: Line, track: Track, split: Split, judge: Judge, seed: int) -> list[Mark]:
    """The marks of a line, from the cache where they were measured on such a machine before."""
    facts = {key: value for key, value in describe("cpu").items() if key != "date"}
    plan = [track.marks, track.n, seed, split[0].sha256]
    key = hashlib.sha256(json.dumps([line.key, plan, facts]).encode()).hexdigest()[:16]
    path = cache_folder() / "race" / f"{key}.json"
    if path.is_file():
        try:
            return [Mark(**mark) for mark in json.loads(path.read_text(encoding="utf-8"))]
        except (ValueError, TypeError):
            print(f"  {path} is damaged and measured again", flush=True)
    marks = []
    for mark in _race(line.start(seed), track, split[0][:], judge, seed):
        numbers = f"inception score {mark.score:.3f}, Fréchet distance {mark.distance:.3f}, {mark.steps} steps"
        print(f"  {track.name}: {line.name}, seed {seed}, {mark.seconds:g} s: {numbers}", flush=True)
        marks.append(mark)
    try:
        write_text(path, json.dumps([asdict(mark) for mark in marks]))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}. Set SCORE_LIGHTNING_CACHE") from error
    return marks


def _race(racer: Racer, track: Track, images: torch.Tensor, judge: Judge, seed: int) -> Iterator[Mark]:
    order, trained = torch.Generator().manual_seed(seed), 0.0
    for seconds in track.marks:
        start = time.process_time()
        while (passed := trained + time.process_time() - start) < seconds:
            racer.train(images[torch.randint(len(images), (racer.batch,), generator=order)])
        trained = passed
        start = time.process_time()
        drawn = racer.sample(racer.average, track.n, seed)
        sampling = (time.process_time() - start) / track.n * 1000
        yield Mark(seconds, *judge(drawn), sampling, racer.steps)


def _table(track: Track, results: Results, field: str, title: str, note: str = "") -> Table:
    more = field == "score"
    rows: list[Row] = []
    points: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for name, seeds in results.items():
        points[name], bands[name] = [], []
        for marks in zip(*seeds, strict=True):
            values = [getattr(mark, field) for mark in marks]
            seconds, mean = marks[0].seconds, statistics.fmean(values)
            drawing = f"{plain(statistics.fmean(mark.sampling for mark in marks))} s to draw 1,000"
            rows.append(Row(f"{name}, {seconds:g} s", mean, min(values), max(values), note=drawing))
            points[name].append((seconds, mean))
            bands[name].append((seconds, min(values), max(values)))
    curves = Curves("seconds of one core", title, points, log_y=not more, bands=bands)
    heading = f"{title[0].upper()}{title[1:]} of {track.name} after seconds of training"
    note = f"{f'Means over {track.seeds} seeds' if track.seeds > 1 else 'One seed'}. {note}".strip()
    return Table(heading, title, rows, more=more, note=note, curves=[curves], spread="lowest to highest seed")
