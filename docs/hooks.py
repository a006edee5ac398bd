"""What the site adds to MkDocs: pages of files beside docs/, what --help says, notebooks once there are any."""

import json
import logging
import posixpath
import re
from html import escape
from importlib import import_module
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from score_lightning import config as settings

LOG = logging.getLogger("mkdocs.hooks")
ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages of the site, too."""

NOTEBOOKS = {"quickstart": "Quick start", "theory": "Theory", "your_images": "Your own images"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds the notebooks that are there to the navigation, before the reference."""
    here = Path(config.docs_dir) / "notebooks"
    found = [
        {title: f"notebooks/{name}.ipynb"} for name, title in NOTEBOOKS.items() if (here / f"{name}.ipynb").exists()
    ]
    if found and config.nav is not None:
        place = next(i for i, entry in enumerate(config.nav) if "API reference" in entry)
        config.nav.insert(place, {"Notebooks": found})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages made of files beside docs/, with their links as seen from docs/."""
    for source, target in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, target, content=from_top(text)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """The text of a page, with links to those files turned into links to their pages, and what --help says."""
    markdown = re.sub(r"^usage of (\w+)$", lambda mark: usage(mark[1]), to_pages(markdown), flags=re.M)
    return re.sub(r"^settings$", lambda _: table_of_settings(), markdown, flags=re.M)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """The content of a page; of a notebook with links that lead to pages, which MkDocs leaves as they are."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    html = describe_pictures(html, Path(str(page.file.abs_src_path)))

    def lead(link: re.Match[str]) -> str:
        target = files.get_file_from_path(
            posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link[1]))
        )
        if target is None:
            LOG.warning("Notebook '%s' has a link '%s', but there is no such page.", page.file.src_uri, link[1])
            return link[0]
        return f'href="{target.url_relative_to(page.file)}'

    return re.sub(r'href="((?!\w+:)[^"#]+\.(?:md|ipynb))(?=["#])', lead, html)


def describe_pictures(html: str, notebook: Path) -> str:
    """The content of a notebook, whose pictures have the alternative texts that stand in its metadata."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())]
    texts = iter([output["metadata"].get("image/png", {}).get("alt", "") for output in outputs])

    def describe(tag: re.Match[str]) -> str:
        return re.sub(r' alt="[^"]*"', "", tag[0]).replace("<img", f'<img alt="{escape(next(texts))}"', 1)

    return re.sub(r'<img\b[^>]*src="data:image/png[^>]*>', describe, html)


def from_top(text: str) -> str:
    """Text of the top of the repository, with its relative links as seen from docs/."""
    text = re.sub(r"(\]\()(?=[A-Z]+\.md)", r"\1../", text)
    return re.sub(r"(\]\()docs/", r"\1", text)


def to_pages(text: str) -> str:
    """Text of docs/, in which links to files of `PAGES` lead to their pages."""
    return re.sub(r"\]\(\.\./([A-Z]+\.md)", lambda link: f"]({PAGES.get(link[1], link[0][2:])}", text)


def usage(command: str) -> str:
    """What --help says of a command, but for the settings and experiments, which have pages of their own."""
    text = import_module(f"score_lightning.{command}").usage()
    text = text.replace(f":\n{settings.describe()}", ".").replace(
        ", ".join(settings.experiments()), "make experiments lists them"
    )
    return text.replace("\nkeys [default].", "").strip()


def table_of_settings() -> str:
    """What --help says of the settings, as a table."""
    rows = []
    for line in settings.describe().splitlines():
        key, _, text = line.strip().partition(" ")
        name = "&emsp;" * line.startswith("      ") + f"<code>{escape(key)}</code>"
        rows.append(f"<tr><td>{name}</td><td>{escape(text.strip())}</td></tr>")
    return f"<table><thead><tr><th>setting</th><th>meaning</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
