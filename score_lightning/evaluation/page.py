"""report.html, a single page that can be mailed: one part of a training, one of an evaluation, each renewed alone."""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from score_lightning.runtime.files import write_text

PAGE = "report.html"
PARTS = ("training", "evaluation")
"""In the order of the page."""


def write_part(folder: Path, part: str, title: str, body: str) -> Path:
    """Writes one of `PARTS`, HTML below a title, into a folder's report.html, and keeps the other one."""
    path = folder / PAGE
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.is_file() else ""
    parts = {**_parts(text), part: f"<h1>{html.escape(title)}</h1>\n{body}"}
    shown = [name for name in PARTS if name in parts]
    links = " · ".join(f'<a href="#{name}">{name.capitalize()}</a>' for name in shown)
    sections = [f"{_mark(name)}\n{parts[name]}\n{_mark(name, end=True)}" for name in shown]
    body = "\n".join([f"<nav>{links}</nav>", *sections] if len(shown) > 1 else sections)
    heading = parts[shown[0]].partition("</h1>")[0].removeprefix("<h1>")
    write_text(path, _PAGE.format(title=heading, body=body))
    return path


def _mark(part: str, end: bool = False) -> str:
    return "</section><!-- end of part -->" if end else f'<section id="{part}">'


def _parts(text: str) -> Mapping[str, str]:
    """The parts of a page; none of a page from before there were any."""
    start, end = _mark("PART").replace("PART", r"(\w+)"), re.escape(_mark("", end=True))
    return dict(re.findall(rf"^{start}\n(.*?)\n{end}$", text, re.S | re.M))


def section(heading: str, content: str) -> str:
    """HTML below a heading."""
    return f"<h2>{html.escape(heading)}</h2>\n{content}"


def figure(png: bytes, name: str, caption: str = "", kind: str = "plot") -> str:
    """A picture, embedded.

    Args:
        png: the file.
        name: for those who do not see it.
        caption: below it.
        kind: `plot`, `pixels` (which stay sharp when they are enlarged), or `small`, of which several make a row.
    """
    source = base64.b64encode(png).decode()
    image = f'<img class="{kind}" alt="{html.escape(name)}" src="data:image/png;base64,{source}">'
    return f'<figure class="{kind}">{image}<figcaption>{html.escape(caption)}</figcaption></figure>'


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table of rows of text, the first of which is its head."""
    head, *body = ([f"<{tag}>{_breakable(cell)}</{tag}>" for cell in row] for row, tag in _tagged(rows))
    lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in body)
    kind = ' class="wide"' if len(head) > 2 else ""
    return f"<div{kind}><table><thead><tr>{''.join(head)}</tr></thead><tbody>\n{lines}\n</tbody></table></div>"


def _breakable(cell: str) -> str:
    """The text of a cell, with places for line breaks within the names of metrics and settings."""
    return re.sub(r"(?<=\w)([_.])(?=\D)", r"\1<wbr>", html.escape(cell)) if " " not in cell else html.escape(cell)


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], str]]:
    return [(row, "td" if i else "th") for i, row in enumerate(rows)]


def folded(heading: str, text: str) -> str:
    """Text as it is, shown on demand."""
    return f"<details><summary>{html.escape(heading)}</summary><pre>{html.escape(text)}</pre></details>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.4rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.15rem; margin: 2rem 0 .5rem; }}
section + section {{ margin-top: 4rem; border-top: 1px solid #8884; }}
figure {{ margin: 0; }}
figure.small {{ display: inline-block; width: 9rem; margin: 0 1rem .5rem 0; }}
figcaption {{ opacity: .75; font-size: .9rem; }}
img {{ max-width: 100%; height: auto; background: #fff; }}
img.pixels {{ image-rendering: pixelated; }}
img.plot {{ width: 40rem; }}
pre {{ overflow-x: auto; font-size: .85rem; }}
.wide {{ overflow-x: auto; }}
.wide :is(th, td):first-child {{ position: sticky; left: 0; background: Canvas; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884; }}
td {{ overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }}
td:first-child {{ overflow-wrap: normal; }}
.wide td {{ white-space: nowrap; }}
@media (max-width: 30rem) {{ body {{ font-size: 14px; }} }}
</style></head><body>
{body}
</body></html>
"""
