"""The sections of a configuration: each field with its type, default, bounds and help text."""

from dataclasses import dataclass, field
from typing import Any

from score_lightning.config.bounds import doc


@dataclass
class Images:
    """What the model sees of the data, wherever they come from."""

    size: Any = doc("height and width in pixels: N of squares, else [H,W]", 0)
    channels: int = doc("1 for grayscale, 3 for color, or any number", 0)
    depth: str = doc("how pixels are stored: 8 or 16 bits, or float", "8", choices=("8", "16", "float"))
    input_range: list[float] = doc(
        "stored values [black,white] ([]: 0 and the largest integer; floats need it)", factory=list
    )
    resize: str = doc("how pictures of another size are resized: bicubic, bilinear or lanczos", "bicubic")
    background: str = doc("color that transparent pictures are composited on: a name or #rrggbb", "white")
    range: list[float] = doc("range of pixels inside the model", factory=lambda: [-1.0, 1.0])
    flip: bool = doc("flip training images left to right at random", False)
    augment: float = doc(
        "probability of each of EDM's augmentations; the network is conditioned on them", 0.0, at_least=0, at_most=1
    )
    dequantize: bool = doc("gray levels are intervals: images get uniform noise of less than one level", False)

    def __post_init__(self) -> None:
        if isinstance(self.size, list) and len(self.size) == 2 and self.size[0] == self.size[1]:
            self.size = self.size[0]


@dataclass
class Labels:
    """Class labels, of a network that is conditioned on them."""

    classes: int | None = doc("number of classes, of a network conditioned on labels (null: unconditional)", None)
    drop: float = doc("share of training images whose label is dropped, for guidance", 0.1, at_least=0, below=1)
    guidance: float = doc("classifier-free guidance weight w in sampling: eps = (1 + w) eps(label) - w eps", 0.0)


@dataclass
class Optimizer:
    """Adam, and Muon for hidden layers."""

    lr: float = doc("learning rate", 2e-4, above=0)
    betas: list[float] = doc("decay of the first and second moments", factory=lambda: [0.9, 0.999])
    eps: float = doc("added to the root of the second moment", 1e-8, at_least=0)
    weight_decay: float = doc("weight decay", 0.0, at_least=0)
    warmup: int = doc("steps over which the learning rate rises from 0", 0, at_least=0)
    decay: bool = doc("decay the learning rate linearly to 0 at trainer.max_steps", False)
    clip: float | None = doc("maximum norm of the gradient (null: no clipping)", None)
    muon: float | None = doc(
        "learning rate of Muon for the weights of hidden layers, with net=unet_light (null: Adam for all)",
        None,
        above=0,
    )


@dataclass
class Ema:
    """Exponential moving average of the weights: what is validated, sampled and evaluated."""

    decay: float = doc("decay per step (0: the weights themselves)", 0.9999, at_least=0, at_most=1)
    warmup: bool = doc("decay at most (1 + step) / (10 + step)", True)
    ramp: float | None = doc(
        "half-life of at most this share of the steps so far, as in EDM (null: no limit)", None, above=0
    )


@dataclass
class Trainer:
    """The run."""

    max_steps: int = doc("optimizer steps", at_least=1)
    batch_size: int = doc("images per step, over all processes", 128, at_least=1)
    accumulate: int = doc("batches whose gradients are accumulated before a step", 1, at_least=1)
    precision: str = doc(
        "32-true, bf16-mixed, 16-mixed ..., or auto: bf16-mixed where the hardware supports it", "32-true"
    )
    compile: bool = doc("compile the network for training where possible; hardly worth it on CPUs", False)
    checkpointing: bool = doc(
        "compute activations again in the backward pass: less memory, more time, the same results", False
    )
    accelerator: str = doc("auto, cpu, gpu, mps ...", "auto")
    devices: str = doc("number of processes per node (auto: one for each GPU, or 1)", "auto")
    num_nodes: int = doc("number of machines", 1)
    strategy: str = doc("Lightning's strategy: auto, ddp ...", "auto")
    workers: int = doc("processes that load images (worth it where images do not fit in memory)", 0, at_least=0)
    log_every: int = doc("steps between logged training losses", 50, at_least=1)
    checkpoint_every: int = doc("steps between checkpoints", 1000, at_least=1)
    checkpoint_minutes: float | None = doc("minutes between checkpoints, if sooner (null: steps only)", None, above=0)
    keep: int = doc("number of checkpoints to keep", 2, at_least=1)
    skip_nonfinite: int = doc(
        "steps with a non-finite loss or gradient to skip; the next one stops the run", 0, at_least=0
    )
    progress: bool = doc("show progress bars", True)


@dataclass
class Validation:
    """The loss of held-out images at fixed times with fixed noise."""

    every: int = doc("steps between validations", 1000, at_least=1)
    n: int = doc("number of (image, time, noise) triples", 1000, at_least=1)
    levels: int = doc("noise levels at which the loss is reported", 10, at_least=1)


@dataclass
class Samples:
    """Grids of samples during training."""

    n: int = doc("images in a grid (0: no grids)", 64, at_least=0)
    every: int = doc("steps between grids (the last step always has one)", 5000, at_least=1)


@dataclass
class Evaluation:
    """Metrics of generated images against the training images."""

    n: int = doc("generated images (0: no evaluation during training)", 1000, at_least=0)
    every: int | None = doc("steps between evaluations during training (null: at the end only)", None, at_least=1)
    metrics: list[str] = doc(
        "which metrics",
        factory=lambda: ["fid", "is", "kid", "precision_recall", "density_coverage", "memorization"],
    )
    splits: int = doc("splits that the inception score is averaged over", 10, at_least=1)
    kid_subsets: int = doc("random subsets that KID is averaged over", 100, at_least=1)
    kid_subset_size: int = doc("images in each subset (at most all)", 1000, at_least=2)
    batch_size: int = doc("images generated per batch", 256, at_least=1)


@dataclass
class Logger:
    """Where numbers and pictures go besides the run folder."""

    wandb: str = doc(
        "Weights & Biases: auto (online with a key, else offline), online, offline or off",
        "auto",
        choices=("auto", "online", "offline", "off"),
    )
    project: str = doc("project at Weights & Biases", "score_lightning")
    artifact: bool = doc("upload the last checkpoint at the end", False)
    tensorboard: bool = doc("also write TensorBoard's files", False)


@dataclass
class Config:
    """A whole run."""

    exp: str = doc("experiment: a name in experiments/ or a path to a YAML file")
    seed: int = doc("seed of all random numbers", 0, at_least=0)
    out: str = doc("folder of runs, or of results for eval and sample", "runs")
    images: Images = doc("", factory=Images)
    points: int = doc("dimensions of a data point, for data other than images (0: images)", 0)
    labels: Labels = doc("", factory=Labels)
    condition: dict[str, Any] = doc("a picture that images are conditioned on ({}: none)", factory=dict)
    data: dict[str, Any] = doc("where images come from", factory=dict)
    net: dict[str, Any] = doc("the network", factory=dict)
    schedule: dict[str, Any] = doc("the noise levels", factory=dict)
    continuous: bool = doc("use the continuous limit of a discrete schedule: all times between its levels", False)
    prediction: str = doc("what the network predicts: score, sigma_score, eps, x_0, v, velocity, edm or energy", "eps")
    conditioning: str = doc("what the network embeds of the noise: time, time_of_1000, level, log_sigma or edm", "time")
    sigma_data: float = doc("standard deviation of the data, for edm's preconditioning", 0.5)
    objective: dict[str, Any] = doc("the loss", factory=dict)
    sampler: dict[str, Any] = doc("the sampler", factory=dict)
    guide: str | None = doc("checkpoint of a worse model that samples are guided away from (null: none)", None)
    guidance: float = doc("weight w of the guide: x_0 = (1 + w) x_0(model) - w x_0(guide)", 0.0)
    guidance_interval: list[float] = doc(
        "noise levels [low, high], sigma / alpha, with guidance by guide or labels ([]: all)", factory=list
    )
    preview: dict[str, Any] = doc(
        "sampler for grids and evaluation during training: what differs from sampler", factory=dict
    )
    features: dict[str, Any] = doc("the feature network of the metrics", factory=lambda: {"name": "auto"})
    init: str | None = doc("checkpoint whose averaged weights training starts from", None)
    optimizer: Optimizer = doc("", factory=Optimizer)
    ema: Ema = doc("", factory=Ema)
    trainer: Trainer = doc("", factory=Trainer)
    validation: Validation = doc("", factory=Validation)
    samples: Samples = doc("", factory=Samples)
    evaluation: Evaluation = doc("", factory=Evaluation)
    logger: Logger = doc("", factory=Logger)


@dataclass(frozen=True)
class Figure:
    """What a toy experiment draws after its training; in the experiment's file only, no part of a run's configuration.

    Args:
        name: of the figure; None for none.
        variants: label -> key=value overrides of each training that it compares, an empty list for the run itself.
    """

    name: str | None = None
    variants: dict[str, list[str]] = field(default_factory=dict)
