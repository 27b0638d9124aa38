"""The documents hold together: every link and picture that they name is there."""

import re
from pathlib import Path

import pytest

from tasks.catalog import FAMILIES
from tasks.store.workspace import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if re.match(r"https?:|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{document.name}: {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_is_there(document):
    for name in re.findall(r"`((?:flows|tasks|genai_core|tests|configs|benchmarks)/[\w/]+\.\w+)`",
                           document.read_text(encoding="utf-8")):
        assert (REPOSITORY / name).is_file(), f"{document.name}: {name}"


def test_every_family_has_a_page():
    for family in FAMILIES:
        text = (REPOSITORY / "docs" / f"{family}.md").read_text(encoding="utf-8")
        assert f"genai run --family {family}" in text and "## What goes wrong" in text
