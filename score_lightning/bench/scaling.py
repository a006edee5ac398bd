"""docs/scaling.md, estimated costs of recipes on GPUs: python -m score_lightning.bench.scaling [share=0.3] [out=docs].

Computed, not measured, from each network's operations, the size of its gradients and the data sheet of a device;
`share` is the fraction of the peak that training reaches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from score_lightning import cli, config
from score_lightning.config import Resolved
from score_lightning.errors import UserError
from score_lightning.experiment.build import Experiment
from score_lightning.models import ScoreModel
from score_lightning.tracking.dashboard import training_flops

PEAK = 312e12
"""Operations per second of an A100 in bfloat16 (its data sheet)."""
BANDWIDTH = {8: 300e9, 64: 25e9}
"""Number of GPUs -> bytes per second in one direction, which limit their ring: NVLink of an A100; 200 Gbit/s between
machines of 8 (their data sheets)."""
SHARE = 0.3
"""Assumed fraction of the peak: what convolutional networks of these sizes are reported to reach."""
SHOWN = "ddpm_cifar"
HIDDEN = 2 / 3
"""Fraction of a step's computation that hides the message: the backward pass, during which it is sent."""


@dataclass(frozen=True)
class Cost:
    """The work of a recipe.

    Args:
        name: of the experiment.
        parameters: number of those whose gradients are sent.
        flops: floating-point operations of the forward and backward pass of an image.
        batch: images per step, over all processes.
        steps: of the optimizer.
    """

    name: str
    parameters: int
    flops: float
    batch: int
    steps: int

    def hours(self, share: float) -> float:
        """GPU hours on a single GPU."""
        return self.flops * self.batch * self.steps / (PEAK * share) / 3600

    def step(self, gpus: int, share: float, batch: int | None = None) -> float:
        """Seconds of computation per step, with the recipe's batch size or another one."""
        return self.flops * (batch or self.batch) / (gpus * PEAK * share)

    def message(self, gpus: int) -> float:
        """Seconds to sum the gradients in a ring: each of n GPUs sends 2 (n - 1) / n times 4 bytes per parameter."""
        return 2 * (gpus - 1) / gpus * 4 * self.parameters / BANDWIDTH[gpus]

    def efficiency(self, gpus: int, share: float, batch: int | None = None) -> float:
        """Speed over that of as many separate GPUs, if the backward pass hides as much of the message as it can."""
        computing = self.step(gpus, share, batch)
        return computing / (computing + max(0.0, self.message(gpus) - HIDDEN * computing))


def cost_of(resolved: Resolved) -> Cost:
    """Of an experiment of images, by its file alone; nothing is computed and no memory taken."""
    c, experiment = resolved.config, Experiment(resolved)
    net = experiment.build_net("meta")
    model = ScoreModel(net, experiment.schedule, c.prediction, c.conditioning, c.sigma_data)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    flops = training_flops(model, experiment.shape)
    return Cost(c.exp, parameters, flops, c.trainer.batch_size * c.trainer.accumulate, c.trainer.max_steps)


def page(costs: Sequence[Cost], share: float) -> str:
    """The page in Markdown."""
    shown = next(cost for cost in costs if cost.name == SHOWN)
    return PAGE.format(
        peak=PEAK / 1e12,
        share=100 * share,
        source="an assumption: no GPU was available to measure it" if share == SHARE else "as given",
        within=BANDWIDTH[8] / 1e9,
        between=BANDWIDTH[64] / 1e9,
        name=shown.name,
        parameters=shown.parameters / 1e6,
        message=4 * shown.parameters / 1e6,
        flops=shown.flops / 1e9,
        scaling="\n".join(_scaling(shown, share)),
        costs="\n".join(_cost(cost, share) for cost in costs),
    )


def _scaling(cost: Cost, share: float) -> Iterator[str]:
    """Rows of a recipe with its own batch size, and with that many images on each GPU."""
    for gpus in BANDWIDTH:
        for batch in (cost.batch, cost.batch * gpus):
            computing, efficiency = cost.step(gpus, share, batch), cost.efficiency(gpus, share, batch)
            yield (
                f"| {gpus} | {batch // gpus} | {1e3 * computing:.1f} ms | {1e3 * cost.message(gpus):.1f} ms "
                f"| {100 * efficiency:.0f} % | {batch / computing * efficiency:,.0f} |"
            )


def _cost(cost: Cost, share: float) -> str:
    """The row of a recipe."""
    days = [cost.hours(share) / gpus / 24 / cost.efficiency(gpus, share) for gpus in BANDWIDTH]
    return (
        f"| {cost.name} | {cost.parameters / 1e6:.1f} | {cost.flops / 1e9:.1f} | {cost.batch} | {cost.steps:,} "
        f"| {cost.hours(share):,.1f} | {days[0]:.2f} | {days[1]:.2f} |"
    )


PAGE = """# Scaling on paper

`make scaling` computed this page. Unless stated otherwise, nothing was measured. The peak of an A100 is {peak:.0f}
TFLOP/s in bfloat16, of which training reaches {share:.0f} % ({source}).
In float32 with TF32 the peak is half of that, and hours double. Gradients are float32, summed by a ring all-reduce over
{within:.0f} GB/s within a machine and {between:.0f} GB/s between machines. DDP sends them during the backward pass, two
thirds of a step; a step waits for whatever takes longer.

For {name}: {parameters:.1f} M parameters make a message of {message:.0f} MB; an image takes {flops:.1f} GFLOP forward
and backward.

| GPUs | images per GPU | computation | message | efficiency | images/s |
|---|---|---|---|---|---|
{scaling}

Kernels do not reach that share with few images per GPU: many GPUs only pay off with larger batches.

## What a reproduction costs

Training alone, at the recipe's batch size and number of steps.

| experiment | M parameters | GFLOP per image | batch | steps | GPU hours | days on 8 GPUs | days on 64 |
|---|---|---|---|---|---|---|---|
{costs}
"""


def usage() -> str:
    """The text of --help."""
    return str(__doc__)


def main(arguments: Sequence[str]) -> None:
    """Writes the page."""
    options, _ = cli.split_arguments(arguments, {"out": str, "share": float})
    out, share = Path(options.get("out", "docs")), options.get("share", SHARE)
    if not 0 < share <= 1:
        raise UserError(f"share must lie between 0 and 1, got {share}")
    experiments = [config.load([], name) for name in config.experiments()]
    costs = [cost_of(resolved) for resolved in experiments if not resolved.config.points]
    out.mkdir(parents=True, exist_ok=True)
    (out / "scaling.md").write_text(page(costs, share), encoding="utf-8")
    print(f"Everything is in {out / 'scaling.md'}")


if __name__ == "__main__":
    cli.run(main, usage)
