"""What is written of generated images and their metrics: picture grids, metrics.json, report.html."""

import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from score_lightning.errors import UserError


def save_grid(images: Tensor, path: Path, smallest: int = 512) -> Path:
    """Writes uint8 images (N, C, H, W) as a nearly square PNG grid, small ones enlarged in whole steps.

    Args:
        smallest: width in pixels that the grid is enlarged to at least.
    """
    rows = max(1, round(len(images) ** 0.5))
    columns = -(-len(images) // rows)
    grid = make_grid(images, nrow=columns, padding=max(1, images.shape[3] // 16), pad_value=255)
    picture = Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy())
    factor = -(-smallest // picture.width)
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def make_folder(folder: Path) -> Path:
    """Makes a folder for results, unless it is there.

    Raises:
        UserError: when it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made as a folder for results: {error}") from error
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def write_metrics(folder: Path, metrics: Mapping[str, float], settings: Mapping[str, Any]) -> Path:
    """Writes metrics.json: flat names, each with its features, beside `settings`."""
    path = folder / "metrics.json"
    write_text(path, json.dumps({**metrics, "settings": dict(settings)}, indent=2) + "\n")
    return path


def write_report(folder: Path, title: str, metrics: Mapping[str, float], settings: Mapping[str, Any]) -> Path:
    """Writes report.html, one page with the pictures inside, from samples.png beside it."""
    picture = base64.b64encode((folder / "samples.png").read_bytes()).decode()
    path = folder / "report.html"
    page = _PAGE.format(
        title=html.escape(title),
        metrics=_rows({name: f"{value:.4f}" for name, value in metrics.items()}),
        settings=_rows(_flat(settings)),
        picture=picture,
    )
    write_text(path, page)
    return path


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, value in settings.items():
        rows |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: str(value)}
    return rows


def _rows(table: Mapping[str, str]) -> str:
    return "\n".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in table.items())


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; image-rendering: pixelated; }}
table {{ border-collapse: collapse; width: 100%; table-layout: fixed; }}
th, td {{ text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }}
th {{ font-weight: 500; }}
</style></head><body>
<h1>{title}</h1>
<h2>Metrics</h2><table>{metrics}</table>
<h2>Samples</h2><img alt="Grid of samples" src="data:image/png;base64,{picture}">
<h2>Settings</h2><table>{settings}</table>
</body></html>
"""
