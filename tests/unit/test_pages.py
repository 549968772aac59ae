"""The pages of documentation: their links lead somewhere, and what they copy from the code is what the code says."""

import re
from pathlib import Path

import pytest

from relay.api.openapi import document
from relay.api.routes import NOTHING, OPERATIONS
from relay.settings import Settings
from relay.states import Outcome
from tests.support.pages import API, CODE, FRONT, GENERATED, ROOT, with_part

#: Folders of the checkout that are not the project's.
_OTHERS = {
    ".venv",
    ".git",
    "node_modules",
    ".pytest_cache",
    ".ruff_cache",
    ".mypy_cache",
    ".hypothesis",
    "build",
    "dist",
}
PAGES = [page for page in sorted(ROOT.rglob("*.md")) if not _OTHERS & set(page.relative_to(ROOT).parts)]
_RESULTS = ROOT / "tests" / "bench" / "results" / "bench.md"


def links(page: Path) -> list[str]:
    """Return the targets of all links and images of a page, except those to other sites."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not target.startswith(("https://", "http://"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_front_page() -> None:
    found, new = set[Path](), {FRONT}
    while new:
        found |= new
        targets = {(page.parent / link.partition("#")[0]).resolve() for page in new for link in links(page)}
        new = {target for target in targets if target.suffix == ".md"} - found
    templates = {page for page in PAGES if "TEMPLATE" in str(page).upper()}
    assert set(PAGES) - templates == found


def test_the_front_page_is_short() -> None:
    assert len(FRONT.read_text().splitlines()) <= 130


@pytest.mark.parametrize(("page", "name"), sorted(GENERATED), ids=lambda value: getattr(value, "name", value))
def test_generated_parts_are_up_to_date(page: Path, name: str) -> None:
    """If this fails, run `python -m tests.support.pages`."""
    text = page.read_text()
    assert with_part(text, name, GENERATED[page, name]()) == text


def test_every_outcome_is_explained() -> None:
    section = CODE.read_text().partition("\n## Outcomes\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [str(outcome) for outcome in Outcome.of_transfers()]


@pytest.mark.parametrize(("page", "folder"), [(CODE, ROOT / "relay"), (ROOT / "tests" / "README.md", ROOT / "tests")])
def test_every_folder_is_explained(page: Path, folder: Path) -> None:
    rows = page.read_text()
    for package in folder.glob("*/__init__.py"):
        assert re.search(rf"^\| \[?`?{package.parent.name}/", rows, re.MULTILINE), package.parent.name


def test_the_table_of_requests_has_every_status() -> None:
    text = API.read_text()
    paths = document(OPERATIONS, Settings())["paths"]
    anywhere = set(paths["/openapi.json"]["get"]["responses"]) | {"429", "503"}  # the text below the table says so
    for path, methods in paths.items():
        shown = path.format(token="TOKEN", name="NAME", upload="UPLOAD", file="FILE")
        for method, operation in methods.items():
            row = re.search(rf"^\| `{method.upper()} {shown}`.*$", text, re.MULTILINE)
            if (method, shown) == ("post", "/TOKEN/NAME") or path in NOTHING:
                continue  # as PUT; nothing is there
            if method == "head" and not shown.startswith("/TOKEN/NAME"):
                continue  # as GET
            assert row, (method, shown)
            for status in set(operation["responses"]) - anywhere:
                assert re.search(rf"\b{status}\b", row[0]), (method, shown, status)


def test_the_figures_of_the_front_page_are_those_of_the_last_run() -> None:
    section = FRONT.read_text().partition("\n## How fast\n")[2].partition("\n## ")[0]
    goals = re.findall(r"^\| .* \| .* \| .* \| .* \|$", _RESULTS.read_text().partition("The median")[0], re.MULTILINE)
    measured = re.findall(r"(\d+\.\d+) (×|ms|KiB)", re.sub(r"\(goal: .*?\)", "", section))
    assert len(measured) == 6
    for number, unit in measured:
        assert any(f"| {number} {unit} |" in goal for goal in goals), (number, unit)
    for goal in re.findall(r"goal: (.*?)\)", section):
        assert any(f"≥ {goal} " in line and "**not reached**" in line for line in goals), goal
