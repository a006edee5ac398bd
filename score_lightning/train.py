"""Trains an experiment: python -m score_lightning.train exp=NAME [key=value …]."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_lightning import cli, config
from score_lightning.errors import UserError
from score_lightning.experiment.resume import check_resumed, choose_precision, find_newest, read_checkpoint, start_from
from score_lightning.runtime.signals import stop_at_signals

if TYPE_CHECKING:
    import lightning as L

    from score_lightning.config.schema import Config
    from score_lightning.generation.generator import Generator


OPTIONS = {"exp": str, "dry_run": bool, "resume": str}


def usage() -> str:
    """The text of --help."""
    return f"""python -m score_lightning.train exp=NAME [key=value …]

Trains an experiment and writes runs/<experiment>/<version>/.
  dry_run=true                 print the resolved configuration and the number of parameters, and stop
  resume=auto                  go on from this experiment's newest checkpoint of these settings, in its folder, or begin
  resume=FILE                  go on from a checkpoint in a new folder (exp may be left out: its own configuration)
  init=FILE                    start from the averaged weights of a checkpoint, imported ones too

experiments: {", ".join(config.experiments())}

keys [default]:
{config.describe()}"""


def main(words: Sequence[str]) -> None:
    """Trains what the words say."""
    with stop_at_signals():
        _main(words)


def _main(words: Sequence[str]) -> None:
    own, rest = cli.split_arguments(words, OPTIONS)
    if own.get("resume") == "auto":
        own |= find_newest(own, rest)
        if own.get("done"):
            print(f"{own['done']} has done all its steps: trainer.max_steps=N adds more")
            return
    resumed = read_checkpoint(own.get("resume"))
    if resumed is not None and any(word.startswith("init=") for word in rest):
        raise UserError("resume goes on with a training's own weights: leave out init")
    resolved = _resolve(own, rest, resumed)
    _check(resolved.config)
    choose_precision(resolved.config)

    from score_lightning.experiment import build

    module = build.build_module(resolved)
    _build_preview(resolved)
    variants = _plan(resolved)
    if resumed is None and resolved.config.init is not None:
        start_from(resolved, module)
    if resumed is not None:
        check_resumed(resolved.config, module, own["resume"], resumed)
    if own.get("dry_run"):
        print(config.to_yaml(resolved.plain()))
        print(f"parameters: {sum(p.numel() for p in module.model.parameters())}")
        return
    if "draw" in own:  # trained, but stopped before the figure
        contents = read_checkpoint(str(own["draw"]))
        module.load_state_dict(contents["state_dict"] if contents else {})
        folder = own["draw"].parent.parent
    else:
        folder = _train(resolved, module, own.get("resume"), own.get("folder"))
    if resolved.config.figure is not None:
        _draw(resolved, module, variants, folder)


def _resolve(own: dict[str, Any], rest: Sequence[str], resumed: dict[str, Any] | None) -> config.Resolved:
    if "exp" in own:
        return config.load(rest, own["exp"])
    if resumed is None:
        raise UserError(f"exp=NAME is missing; experiments: {', '.join(config.experiments())} (--help lists all keys)")
    return config.change(resumed["config"], own["resume"], rest)


def _check(c: "Config") -> None:
    """Refuses settings that could only fail later."""
    t = c.trainer
    if c.figure is not None:
        from score_lightning.figures import check_figure

        check_figure(c)
    for key, value, least in [
        ("trainer.max_steps", t.max_steps, 1),
        ("trainer.batch_size", t.batch_size, 1),
        ("trainer.accumulate", t.accumulate, 1),
        ("trainer.log_every", t.log_every, 1),
        ("trainer.checkpoint_every", t.checkpoint_every, 1),
        ("trainer.workers", t.workers, 0),
        ("trainer.keep", t.keep, 1),
        ("trainer.skip_nonfinite", t.skip_nonfinite, 0),
        ("validation.every", c.validation.every, 1),
        ("validation.levels", c.validation.levels, 1),
        ("validation.n", c.validation.n, c.validation.levels),
        ("seed", c.seed, 0),
        ("optimizer.eps", c.optimizer.eps, 0),
        ("optimizer.weight_decay", c.optimizer.weight_decay, 0),
        ("samples.n", c.samples.n, 0),
        ("samples.every", c.samples.every, 1),
        ("evaluation.every", 1 if c.evaluation.every is None else c.evaluation.every, 1),
        ("evaluation.batch_size", c.evaluation.batch_size, 1),
        ("optimizer.warmup", c.optimizer.warmup, 0),
    ]:
        if value < least:
            raise UserError(f"{key} must be at least {least}, got {value}")
    if t.checkpoint_minutes is not None and not t.checkpoint_minutes > 0:
        raise UserError(f"trainer.checkpoint_minutes must be positive, or null, got {t.checkpoint_minutes}")
    if c.evaluation.n < 2 and c.evaluation.n != 0:
        raise UserError(f"evaluation.n must be 0 (none) or at least 2, got {c.evaluation.n}")
    if not 0 <= c.labels.drop < 1:
        raise UserError(f"labels.drop must lie between 0 and 1, got {c.labels.drop}")
    if not 0 <= c.images.augment <= 1:
        raise UserError(f"images.augment must lie between 0 and 1, got {c.images.augment}")
    if c.ema.ramp is not None and not c.ema.ramp > 0:
        raise UserError(f"ema.ramp must be positive, or null, got {c.ema.ramp}")
    if not 0 <= c.ema.decay <= 1:
        raise UserError(f"ema.decay must lie between 0 and 1, got {c.ema.decay}")
    betas = c.optimizer.betas
    if not c.optimizer.lr > 0 or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise UserError(f"optimizer needs lr > 0 and two betas in [0, 1), got {c.optimizer.lr} and {betas}")
    if c.logger.wandb not in ("auto", "online", "offline", "off"):
        raise UserError(f"logger.wandb must be auto, online, offline or off, got {c.logger.wandb!r}")


def _build_preview(resolved: config.Resolved) -> "Generator":
    """The generation of images in training, and a look at that of afterwards: a mistake in it would show only then."""
    from score_lightning.experiment import build

    build.build_generator(resolved)
    return build.build_generator(resolved, "preview", n=max(resolved.config.samples.n, resolved.config.evaluation.n))


def _train(resolved: config.Resolved, module: Any, resume: str | None, folder: Path | None = None) -> Path:
    from score_lightning.experiment import build
    from score_lightning.experiment.trainer import build_callbacks, build_trainer
    from score_lightning.training.callbacks import run_folder

    generator = _build_preview(resolved)
    split = build.build_images(resolved)
    trainer = build_trainer(resolved, build_callbacks(resolved, split, generator), folder)
    try:
        trainer.fit(module, build.build_data(resolved, split), ckpt_path=resume, weights_only=True)
    except SystemExit as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stopped
        raise
    finally:
        trainer.fit_loop.teardown()  # Lightning leaves workers alive where a validation fails
    folder = run_folder(trainer)
    if trainer.is_global_zero:
        print(_summary(trainer, folder, resolved.config.points > 0))
    return folder


def _plan(resolved: config.Resolved) -> dict[str, tuple[config.Resolved, Any]]:
    """Label -> (configuration, module) of the trainings that a figure compares beside the run itself."""
    from score_lightning.experiment import build

    planned = {}
    for label, words in resolved.config.variants.items():
        if words:
            plain = {**resolved.plain(), "figure": None, "variants": {}, "exp": label.replace(" ", "_")}
            one = config.change(plain, f"variants.{label}", [*words, "logger=off"])
            planned[label] = (one, build.build_module(one))
            if one.config.init is not None:
                start_from(one, planned[label][1])
            _build_preview(one)
    return planned


def _draw(
    resolved: config.Resolved, module: Any, variants: dict[str, tuple[config.Resolved, Any]], folder: Path
) -> None:
    """Trains the variants and draws the figure of all."""
    from score_lightning.experiment import build
    from score_lightning.figures import FIGURES, Trained
    from score_lightning.training.module import read_losses

    c = resolved.config
    trained = []
    for label in c.variants or [Path(c.exp).stem]:
        one, own, place = resolved, module, folder
        if label in variants:
            one, own = variants[label]
            print(f"\n{label}:")
            place = _train(config.change(one.plain(), label, [f"out={folder / 'variants'}"]), own, None)
        losses = read_losses(place / "metrics.csv")
        trained.append(Trained(label, own.average.model.cpu(), build.build_generator(one), str(c.data["set"]), losses))
    data = build.build_images(resolved)[0][:]
    FIGURES[str(c.figure)].draw(trained, data).savefig(folder / "figure.png", dpi=150)
    print(f"\nFigure: {folder / 'figure.png'}")


def _summary(trainer: "L.Trainer", folder: Path, points: bool) -> str:
    from score_lightning.training.callbacks import Evaluate

    lines = [f"\nTrained {trainer.global_step} steps. Everything is in {folder}"]
    if "val/loss" in trainer.callback_metrics:
        lines.append(f"  validation loss {trainer.callback_metrics['val/loss']:.4f}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Evaluate):
            lines += [f"  {name:28} {value:.4f}" for name, value in callback.named.items()]
    pictures = sorted((folder / "samples").glob("step_*.png"))
    lines += [f"  pictures: {pictures[-1]}"] if pictures else []
    checkpoint = folder / "checkpoints" / "last.ckpt"
    return "\n".join(
        [
            *lines,
            *([] if points else [f"Next: make eval CKPT={checkpoint}"]),
            f"{'Next' if points else '  or'}: python -m score_lightning.sample ckpt={checkpoint} n=64 out=samples",
        ]
    )


if __name__ == "__main__":
    cli.run(main, usage)
