"""The sections of a configuration, each field with its type, its default and a word on it."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def doc(text: str, default: Any = MISSING, factory: Any = None) -> Any:
    """A dataclass field with a word on what it is."""
    return (
        field(default_factory=factory, metadata={"doc": text})
        if factory
        else field(default=default, metadata={"doc": text})
    )


@dataclass
class Images:
    """What the model sees of the data, wherever they come from."""

    size: int = doc("height and width in pixels", 0)
    channels: int = doc("1 for grey, 3 for colour", 0)
    range: list[float] = doc("range of pixels inside the model", factory=lambda: [-1.0, 1.0])
    flip: bool = doc("flip training images left to right at random", False)
    augment: float = doc("probability of each of EDM's augmentations, of which the network is told", 0.0)
    dequantize: bool = doc("add uniform noise below one grey level to training images", False)


@dataclass
class Labels:
    """Class labels, where the network is told them."""

    classes: int | None = doc("number of classes, of a network that is told labels (null: it is not)", None)
    drop: float = doc("share of training images whose label is left out, for guidance", 0.1)
    guidance: float = doc("in sampling, eps = (1 + w) eps(label) - w eps: how much labels are exaggerated", 0.0)


@dataclass
class Optimizer:
    """Adam."""

    lr: float = doc("learning rate", 2e-4)
    betas: list[float] = doc("decay of the first and second moments", factory=lambda: [0.9, 0.999])
    eps: float = doc("added to the root of the second moment", 1e-8)
    weight_decay: float = doc("weight decay", 0.0)
    warmup: int = doc("steps over which the learning rate grows from 0", 0)
    decay: bool = doc("let the learning rate fall linearly to 0 at trainer.max_steps", False)
    clip: float | None = doc("largest norm of the gradient (null: no limit)", None)


@dataclass
class Ema:
    """Exponential moving average of the weights: what is validated, sampled and evaluated."""

    decay: float = doc("decay per step (0: the weights themselves)", 0.9999)
    warmup: bool = doc("decay at most (1 + step) / (10 + step)", True)
    ramp: float | None = doc("half-life at most this share of the steps so far, as in EDM (null: no limit)", None)


@dataclass
class Trainer:
    """The run."""

    max_steps: int = doc("optimizer steps")
    batch_size: int = doc("images per step, over all processes", 128)
    accumulate: int = doc("batches whose gradients are added up before a step", 1)
    precision: str = doc("32-true, bf16-mixed, 16-mixed ..., or auto: bf16-mixed where hardware has it", "32-true")
    compile: bool = doc("compile the network for training, where that can be; on CPUs it hardly pays", False)
    accelerator: str = doc("auto, cpu, gpu, mps ...", "auto")
    devices: str = doc("number of processes per node (auto: one for each GPU, or 1)", "auto")
    num_nodes: int = doc("number of machines", 1)
    strategy: str = doc("Lightning's strategy: auto, ddp ...", "auto")
    workers: int = doc("processes that load images (pays where they do not fit in memory)", 0)
    log_every: int = doc("steps between logged training losses", 50)
    checkpoint_every: int = doc("steps between checkpoints", 1000)
    checkpoint_minutes: float | None = doc("minutes between checkpoints, where those come sooner (null: none)", None)
    keep: int = doc("last checkpoints that are kept", 2)
    skip_nonfinite: int = doc("steps with a loss or gradient that is not finite that are skipped; the next stops", 0)
    progress: bool = doc("show progress bars", True)


@dataclass
class Validation:
    """The loss of held-out images on fixed times with fixed noise."""

    every: int = doc("steps between validations", 1000)
    n: int = doc("number of (image, time, noise) triples", 1000)
    levels: int = doc("noise levels that the loss is reported for", 10)


@dataclass
class Samples:
    """Grids of samples during training."""

    n: int = doc("images in a grid (0: no grids)", 64)
    every: int = doc("steps between grids (the last step always has one)", 5000)


@dataclass
class Evaluation:
    """Metrics of generated images against the training images."""

    n: int = doc("generated images (0: no evaluation during training)", 1000)
    every: int | None = doc("steps between evaluations during training (null: at the end only)", None)
    metrics: list[str] = doc(
        "which metrics",
        factory=lambda: ["fid", "is", "kid", "precision_recall", "density_coverage", "memorization"],
    )
    splits: int = doc("parts that the inception score is averaged over", 10)
    kid_subsets: int = doc("random subsets that KID is averaged over", 100)
    kid_subset_size: int = doc("images in each of them, at most all", 1000)
    batch_size: int = doc("images generated at once", 256)


@dataclass
class Logger:
    """Where numbers and pictures go besides the run folder."""

    wandb: str = doc("Weights & Biases: auto (online with a key, else offline), online, offline or off", "auto")
    project: str = doc("project at Weights & Biases", "score_lightning")
    artifact: bool = doc("upload the last checkpoint at the end", False)
    tensorboard: bool = doc("write TensorBoard's files, too", False)


@dataclass
class Config:
    """A whole run."""

    exp: str = doc("experiment: a name in experiments/ or a path to a YAML file")
    seed: int = doc("seed of everything random", 0)
    out: str = doc("folder of runs, or of results for eval and sample", "runs")
    images: Images = doc("", factory=Images)
    points: int = doc("dimensions of points, of data that are no images (0: images)", 0)
    labels: Labels = doc("", factory=Labels)
    data: dict[str, Any] = doc("where images come from", factory=dict)
    net: dict[str, Any] = doc("the network", factory=dict)
    schedule: dict[str, Any] = doc("the noise levels", factory=dict)
    continuous: bool = doc("also take the times between the levels of a discrete schedule", False)
    prediction: str = doc("what the network's output means: score, sigma_score, eps, x_0, v, edm or energy", "eps")
    conditioning: str = doc(
        "what the network is told of the noise: time, time_of_1000, level, log_sigma or edm", "time"
    )
    sigma_data: float = doc("standard deviation of the data, for the edm prediction", 0.5)
    objective: dict[str, Any] = doc("the loss", factory=dict)
    sampler: dict[str, Any] = doc("the sampler", factory=dict)
    preview: dict[str, Any] = doc("sampler of grids and evaluation in training: what differs", factory=dict)
    features: dict[str, Any] = doc("the feature network of metrics", factory=lambda: {"name": "auto"})
    init: str | None = doc("checkpoint whose averaged weights training starts from", None)
    figure: str | None = doc("drawn after training, of points: which", None)
    variants: dict[str, list[str]] = doc(
        "other trainings that the figure compares: label to key=value words", factory=dict
    )
    optimizer: Optimizer = doc("", factory=Optimizer)
    ema: Ema = doc("", factory=Ema)
    trainer: Trainer = doc("", factory=Trainer)
    validation: Validation = doc("", factory=Validation)
    samples: Samples = doc("", factory=Samples)
    evaluation: Evaluation = doc("", factory=Evaluation)
    logger: Logger = doc("", factory=Logger)
