"""The documentation is whole: pages are in the navigation, links and pictures lead somewhere, all names are there."""

import ast
import html
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import score_lightning

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = sorted(path for path in DOCS.rglob("*.md") if path.parent.parent != DOCS / "results")  # no model cards
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *WRITTEN]
REFERENCE = "".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.md")))
MODULES = re.findall(r"^::: ([\w.]+)$", REFERENCE, re.M)

CONTRACT = {
    "schedules": "geometric linear_beta cosine VE VP SubVP EDM Schedule.__call__ Schedule.times Schedule.prior "
    "Schedule.drift Schedule.diffusion2",
    "models": "ScoreModel ScoreModel.forward Model.__call__ Estimate Estimate.score Estimate.eps Estimate.x_0 "
    "GaussianMixtureModel GaussianMixtureModel.__call__",
    "objectives": "Denoising Denoising.__call__ Implicit Sliced VariationalBound Hybrid Objective.__call__",
    "samplers": "sample Ancestral DDIM ReverseDiffusion EulerMaruyama Heun DPMSolverPP AnnealedLangevin Langevin",
    "likelihood": "bits_per_dim",
    "evaluation": "frechet_distance",
    "checkpoint": "load",
    "experiment.train": "train_on",
    "train": "main",
    "eval": "main",
    "sample": "main",
    "import_weights": "main",
    "export": "main",
    "suggest_noise": "main",
}
"""The names that programs outside of the repository call."""

NAMES = [f"score_lightning.{module}.{name}" for module, names in CONTRACT.items() for name in names.split()]
OURS = [
    info.name
    for info in pkgutil.walk_packages(score_lightning.__path__, "score_lightning.")
    if not info.name.startswith("score_lightning.bench") and "__main__" not in info.name
]


def is_listed(name):
    """Whether a page of the reference has this name: itself, or as a public name of its module."""
    module = max((m for m in MODULES if f"{name}.".startswith(f"{m}.")), key=len)
    rest = name[len(module) + 1 :]
    if not rest:
        return True
    found = importlib.import_module(module)
    public = getattr(found, "__all__", None) or [key for key in vars(found) if not key.startswith("_")]
    for part in rest.split("."):
        found = getattr(found, part)
    return rest.split(".")[0] in public and bool(found.__doc__)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_has_each_name_that_other_programs_call(name):
    assert is_listed(name)


def test_the_reference_has_every_package_that_lists_its_names():
    lists = [name for name in OURS if hasattr(importlib.import_module(name), "__all__")]
    assert len(lists) > 8
    assert set(lists) - set(MODULES) == set()


def test_every_module_of_the_reference_is_there_once():
    assert len(MODULES) == len(set(MODULES)) > 40
    for name in MODULES:
        module, _, attribute = name.rpartition(".")
        assert name in OURS or hasattr(importlib.import_module(module), attribute), name


def leaves(entries):
    """The pages of a part of the navigation."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from leaves([value] if isinstance(value, str) else value)


def test_every_page_is_in_the_navigation_once():
    pages = list(leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    made = ["contributing.md", "changelog.md"]
    assert sorted(pages) == sorted([*made, *(str(path.relative_to(DOCS)) for path in WRITTEN)])


def is_text(words):
    """Whether an alternative text says something: not empty, and not the name of a file."""
    return bool(words.strip()) and re.fullmatch(r"\S+\.(png|svg)", words.strip()) is None


def prose(path):
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)


def test_every_picture_has_an_alternative_text():
    pictures = [(path.name, words) for path in PAGES for words in re.findall(r"!\[([^\]]*)\]\(", prose(path))]
    assert len(pictures) > 30
    assert [page for page, words in pictures if not is_text(words)] == []
    tags = [tag for path in PAGES for tag in re.findall(r"<img[^>]*>", prose(path))]
    assert all(is_text("".join(re.findall(r'alt="([^"]*)"', tag))) for tag in tags)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(path):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(path))
    missing = [target for target in targets if not re.match(r"https?:", target) and not (path.parent / target).exists()]
    assert missing == []


def test_the_readme_is_short_and_leads_to_the_pages():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 60
    top = {str(path.relative_to(ROOT)) for path in DOCS.glob("*.md")}
    linked = set(re.findall(r"\]\((docs/[^)#]+)", readme))
    assert top - linked <= {"docs/results.md"}


def test_docstrings_have_no_text_that_a_page_would_take_for_a_tag():
    for name in OURS:
        path = Path(importlib.import_module(name).__file__)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                words = re.sub(r"`[^`]*`", "", ast.get_docstring(node) or "")
                assert re.search(r"<[A-Za-z/]", words) is None, (name, words)


def folder_of(name):
    """A module of the folder docs."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_arguments_described_together_are_shown_one_by_one():
    pytest.importorskip("griffe", reason="needs the extra docs")
    text = "A.\n\nArgs:\n    x: data.\n    alpha, sigma: of the kernel,\n        of shape ().\n    t: time.\n"
    entry = "of the kernel,\n        of shape ().\n"
    assert folder_of("griffe_pairs").apart(text) == (
        f"A.\n\nArgs:\n    x: data.\n    alpha: {entry}    sigma: {entry}    t: time.\n"
    )


def test_notebooks_are_in_the_navigation_as_soon_as_they_are_there(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    nav = [{"Start": "index.md"}, {"API reference": ["reference/index.md"]}]
    config = SimpleNamespace(docs_dir=str(tmp_path), nav=list(nav))
    hooks = folder_of("hooks")
    assert hooks.on_config(config).nav == nav
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/theory.ipynb").write_text("{}")
    notebooks = {"Notebooks": [{"Theory": "notebooks/theory.ipynb"}]}
    assert hooks.on_config(config).nav == [nav[0], notebooks, nav[1]]


def test_links_of_the_top_of_the_repository_lead_to_pages():
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    hooks = folder_of("hooks")
    text = "[a](docs/theory.md#x) [b](CHANGELOG.md) [c](CONTRIBUTING.md#the-house) [d](other.md)"
    assert hooks.to_pages(hooks.from_top(text)) == (
        "[a](theory.md#x) [b](changelog.md) [c](contributing.md#the-house) [d](other.md)"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` does: a warning is an error."""
    for package in ("mkdocs", "material", "mkdocstrings", "mkdocs_jupyter"):
        pytest.importorskip(package, reason="needs the extra docs: pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    program = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "WARNING" not in done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_an_entry_for_every_public_name(site):
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    entries = {line.split()[0]: line.split()[3] for line in zlib.decompress(packed).decode().splitlines()}
    public = {f"{name}.{key}" for name in OURS for key in getattr(importlib.import_module(name), "__all__", ())}
    assert len(public) > 100
    # where a function hides the module of its name, the module has the entry
    lacking = {
        name for name in {*public, *NAMES} if name not in entries and f"{name}.{name.split('.')[-1]}" not in entries
    }
    assert lacking == set()
    for name in NAMES:
        page, _, anchor = entries[name].partition("#")
        assert f'id="{anchor.replace("$", name)}"' in (site / page).read_text(encoding="utf-8"), name


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?([^\"' >]+)", text)
        assert loaded
        assert [address for address in loaded if re.match(r"(https?:)?//", address)] == [], page.name


@pytest.mark.slow
def test_every_picture_of_the_site_is_there_and_described(site):
    pictures = 0
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<img\b[^>]*>", page.read_text(encoding="utf-8")):
            source, words = (re.search(rf'\b{key}="([^"]*)"', tag) for key in ("src", "alt"))
            assert words is not None, (page.name, tag)
            assert is_text(html.unescape(words[1])), (page.name, tag)
            embedded = source[1].startswith("data:image/png;base64,")  # of notebooks
            assert embedded or (page.parent / source[1]).is_file(), (page.name, tag)
            pictures += 1
    assert pictures > 40


@pytest.mark.slow
@pytest.mark.parametrize("words", ["Tweedie", "bits_per_dim", "trainer.checkpoint_minutes", "SDEdit", "train_on"])
def test_the_search_knows(site, words):
    assert words in (site / "search/search_index.json").read_text(encoding="utf-8")
