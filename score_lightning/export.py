"""Writes a checkpoint for other programs: python -m score_lightning.export ckpt=FILE format=safetensors out=DIR."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from score_lightning import cli, config
from score_lightning.errors import UserError

OPTIONS = {"ckpt": str, "format": str, "out": str, "license": str}
FORMATS = ("safetensors", "diffusers")


def usage() -> str:
    """The text of --help."""
    return """python -m score_lightning.export ckpt=FILE format=safetensors|diffusers out=DIR [license=NAME]

Writes a checkpoint's averaged weights to a new folder, with a model card for the Hugging Face Hub, README.md: data,
training, the metrics of the run folder's metrics.json if they are of these weights, commands, and samples.png.
  format=safetensors   model.safetensors and config.json; eval, sample and train init= take the folder as a checkpoint
  format=diffusers     a pipeline: diffusers.DDPMPipeline.from_pretrained(DIR)
  license=NAME         of the weights: a name that the Hub knows, such as mit or cc-by-nc-4.0, or other:NAME;
                       without, the card says unknown"""


def main(overrides: Sequence[str], parts: config.Parts | None = None) -> None:
    """Exports the checkpoint that the options name, with parts of the user's own."""
    options, rest = cli.split_arguments(overrides, OPTIONS, required=("ckpt", "format", "out"))
    name, out = options["format"], Path(options["out"]).expanduser()
    if rest:
        raise UserError(f"export takes {', '.join(f'{key}=…' for key in OPTIONS)}; got {rest[0]!r}")
    if name not in FORMATS:
        raise UserError(f"format must be one of {', '.join(FORMATS)}, got {name!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out={out} exists and is no empty folder: give another one")
    if not out.name:
        raise UserError(f"out={options['out']} must be a new folder")

    from score_lightning.experiment.exporting import export

    missing = export(options["ckpt"], name, out, options.get("license"), parts)
    print(f"Exported {options['ckpt']} in format={name}: {out}")
    for line in missing:
        print(line)
    print(f"Share it: hf upload OWNER/NAME {shlex.quote(str(out))}")


if __name__ == "__main__":
    cli.run(main, usage)
