"""Citations and the bibliography agree, in the package, its configurations and its pages."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCES = "docs/references.md"
NAME = r"(?:van den )?[A-ZÀ-ÖØ-ÞŁ][\w’'-]+"
YEAR = r"(?:19|20)\d\d[a-z]?\b"
SEVERAL = rf"{NAME} (?:et al\.|& {NAME}) {YEAR}"
ONE = rf"(?:(?<=\()|(?<=; )){NAME} {YEAR}|(?<!& )\b{NAME} {YEAR}(?=, (?:Eq|Sec|Alg|Table|Fig|App))"
CITATION = re.compile(rf"{SEVERAL}|{ONE}")


def flat(text: str) -> str:
    """Text on one line, without the marks of comments, so that a citation may wrap."""
    return " ".join(re.sub(r"^\s*#", " ", text, flags=re.M).split())


def cited(text: str) -> set[str]:
    return set(CITATION.findall(flat(text)))


def pages() -> Iterator[Path]:
    """All files that cite, but for the tests and the bibliography."""
    for folder, endings in (
        ("score_lightning", "*.py"),
        ("configs", "*.yaml"),
        ("experiments", "*.yaml"),
        ("docs", "*.md"),
    ):
        yield from (path for path in (ROOT / folder).rglob(endings) if path != ROOT / REFERENCES)
    yield from (ROOT / "README.md", ROOT / "CHANGELOG.md")


def keys() -> list[str]:
    return re.findall(r"^- \*\*(.+?)\*\* · ", (ROOT / REFERENCES).read_text(), re.M)


def uses() -> dict[str, set[str]]:
    return {str(path.relative_to(ROOT)): cited(path.read_text()) for path in pages()}


def unknown(citations: dict[str, set[str]]) -> dict[str, set[str]]:
    """The files with citations that the bibliography lacks, and those."""
    return {path: names - set(keys()) for path, names in citations.items() if names - set(keys())}


def test_every_citation_has_its_key_in_the_bibliography():
    assert unknown(uses()) == {}


def test_every_citation_in_a_test_has_its_key_in_the_bibliography():
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert unknown({path.name: cited(path.read_text()) for path in tests}) == {}


def test_every_key_of_the_bibliography_is_unique_and_cited():
    assert len(keys()) == len(set(keys())) > 40
    assert set(keys()) - set.union(*uses().values()) == set()


def test_every_et_al_is_followed_by_a_year():
    for path in pages():
        text = flat(path.read_text())
        assert len(re.findall(r"\bet al\b", text)) == len(re.findall(rf"\bet al\. {YEAR}", text)), path


@pytest.mark.parametrize(
    "text",
    [
        "(Song et al. 2021, Eq. 5)",  # three papers: the letter is missing
        "of a level (Nobody 1999)",
        "(Vincent 2011; Nobody 1999, Eq. 2)",
        "as in Nobody 1999, Sec. 3",
        "the sampler of Nobody & Noone 2020",
        "# a comment (Nobody\n    # et al. 2020, Eq. 1)",
    ],
)
def test_an_unknown_key_is_reported(text):
    assert len(unknown({"file": cited(text)})["file"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "(Vincent 2011; Song &\nErmon 2019, Eq. 5)",
        "(van den Oord et al. 2016, without)",
        "In Python 3.11 of 2020, on 2 GPUs",
    ],
)
def test_a_known_key_and_a_plain_year_are_not_reported(text):
    assert unknown({"file": cited(text)}) == {}
