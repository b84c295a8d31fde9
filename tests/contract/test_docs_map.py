"""What the documents say of the code is so: stations, settings, links."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentfarm.conf import Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("changes/*.md")]
)

STATION = re.compile(r"^\| [^|]+ \| [^|]+ \| `(?P<file>[^`]+)` \| `(?P<name>[^`]+)` \|$", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?://|mailto:)(?P<path>[^)#]+)(?:#[^)]*)?\)")
VARIABLE = re.compile(r"`([A-Z][A-Z_]+)`")


def stations() -> list[tuple[str, str]]:
    page = (ROOT / "docs" / "life-of-a-run.md").read_text(encoding="utf-8")
    return [(match["file"], match["name"]) for match in STATION.finditer(page)]


def names_in(file: Path) -> set[str]:
    """Functions, classes and Class.method of a Python file; functions and procedures of an SQL file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".sql":
        return set(re.findall(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) ([a-z_.]+)", text))
    return set(_python_names(ast.parse(text).body, ""))


def _python_names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _python_names(node.body, f"{node.name}.")


def test_the_map_has_every_station() -> None:
    page = (ROOT / "docs" / "life-of-a-run.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| (\d) \|", page, re.MULTILINE) == sorted(re.findall(r"^\| (\d) \|", page, re.MULTILINE))
    assert set(re.findall(r"^\| (\d) \|", page, re.MULTILINE)) == set("12345678")
    assert len(stations()) == len([line for line in page.splitlines() if line.startswith("| ")]) - 2


@pytest.mark.parametrize(("file", "name"), stations())
def test_each_function_on_the_map_is_where_the_map_says(file: str, name: str) -> None:
    assert name in names_in(ROOT / file)


def test_each_file_of_the_flow_is_on_the_map() -> None:
    told = {file for file, _ in stations()}
    words = {"__init__.py", "ports.py", "farm.py"}

    silent = [
        path.name
        for path in (ROOT / "agentfarm" / "flow").glob("*.py")
        if path.name not in words and f"agentfarm/flow/{path.name}" not in told
    ]

    assert silent == []


def test_each_setting_is_in_the_list_of_settings() -> None:
    page = (ROOT / "docs" / "operations" / "settings.md").read_text(encoding="utf-8")
    listed = set(VARIABLE.findall(page))
    known: set[str] = set()
    for field in Settings.model_fields.values():
        assert field.validation_alias is not None
        known.update(map(str, field.validation_alias.choices))  # type: ignore[union-attr]  # each is AliasChoices

    assert known - listed == set()
    assert listed - known == {"FLOWER_ADDRESS", "FLOWER_PORT", "FLOWER_BROKER_API"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_somewhere(page: Path) -> None:
    broken = [path for path in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / path).exists()]

    assert broken == []


def test_make_help_lists_what_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"make ([a-z][a-z-]+)", (ROOT / "README.md").read_text(encoding="utf-8")))

    assert named - {"the"} <= targets
