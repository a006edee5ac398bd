"""The notebooks run from anywhere, leave nothing behind, and are kept with outputs that say what they say."""

import base64
import importlib.util
import io
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/notebooks"
NAMES = ["quickstart", "theory", "your_images"]
PICTURES = {"quickstart": 4, "theory": 8, "your_images": 3}
PRINTED = {
    "quickstart": [
        r"Trained 750 steps",
        r"12 evaluations\n  fid_classifier +\d+\.\d+ \[",
        r"coverage_classifier +0\.\d+ \[",
    ],
    "theory": [],
    "your_images": [
        r"5 classes: four 181, one 182",
        r"\[32,32,32\] parameters: 135148",
        r"step 1000: validation loss 0\.",
        r"fid_pixels +\d\.\d+ \[",
        r"\(25, 16, 16, 3\) uint8",
        r"model\.safetensors",
    ],
}


def module_of(name):
    """A module of the folder docs."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path):
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def printed(notebook):
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def pictures(notebook):
    """The pictures of a notebook, and their alternative texts."""
    found = [output for output in outputs(notebook) if "image/png" in output.get("data", {})]
    return [(output.data["image/png"], output.metadata.get("image/png", {}).get("alt", "")) for output in found]


def check(notebook, name):
    """That outputs are there, and nothing that does not belong into them."""
    assert all(cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code")
    assert {output.output_type for output in outputs(notebook)} <= {"stream", "display_data"}
    assert {output.get("name", "stdout") for output in outputs(notebook)} == {"stdout"}
    for pattern in PRINTED[name]:
        assert re.search(pattern, printed(notebook)), pattern
    assert len(pictures(notebook)) == PICTURES[name]
    for png, text in pictures(notebook):
        assert len(text) > 40
        image = Image.open(io.BytesIO(base64.b64decode(png))).convert("L")
        assert image.width > 300
        assert image.getextrema()[1] - image.getextrema()[0] > 100


def test_there_is_one_for_each_entry_of_the_navigation():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_with_its_outputs(name):
    path = FOLDER / f"{name}.ipynb"
    notebook = read(path)
    nbformat.validate(notebook)
    check(notebook, name)
    assert path.stat().st_size < 600_000
    first = notebook.cells[0].source.splitlines()
    assert first[0].startswith("# ")
    assert re.match(r"\*Needs .* minutes?; no network", first[2])
    assert sum(cell.source.startswith("## ") or "\n## " in cell.source for cell in notebook.cells) >= 4


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_nothing_of_the_machine_that_executed_it(name):
    notebook = read(FOLDER / f"{name}.ipynb")
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs(notebook)]
    assert [text for text in texts if re.search(r"(?<![\w.])/\w+/|\b0x[0-9a-f]{6,}|[A-Z]:\\", text)] == []
    assert notebook.metadata == module_of("execute_notebooks").METADATA
    assert all(cell.metadata == {} for cell in notebook.cells)


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_notebook_lead_to_files_of_the_repository(name):
    text = "\n".join(cell.source for cell in read(FOLDER / f"{name}.ipynb").cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#]+)", text)
    assert len(targets) > 2
    assert [target for target in targets if not (FOLDER / target).is_file()] == []


def test_pictures_of_the_site_have_the_alternative_texts_of_the_notebook():
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    path = FOLDER / "theory.ipynb"
    html = '<img class="" src="data:image/png;base64,AA" alt="No description">' * PICTURES["theory"]
    described = module_of("hooks").describe_pictures(html, path)
    assert re.findall(r'alt="([^"]*)"', described) == [text for _, text in pictures(read(path))]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_anywhere_and_leaves_nothing_behind(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    pytest.importorskip("ipykernel")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    copy = folder / f"{name}.ipynb"
    shutil.copy(FOLDER / copy.name, copy)
    module_of("execute_notebooks").execute(copy)
    assert list(folder.iterdir()) == [copy]
    check(read(copy), name)
