"""Docs, help pages and the nodes' own sentences name nodes as the page shows them."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "tests" / "data" / "schema.json").read_text(encoding="utf-8"))
SHOWN = {node["display_name"] for node in SCHEMA.values()}
NOUNS = "Search|Strategy|Sampler|Report|Replay|Sigmas|Law|Conversion|Inspect|Variation|Likelihood"
LONG = re.compile(rf"(?:\b[A-Z][\w-]* )+(?:{NOUNS}|Invert|Encoder)\b(?: \(Advanced\))?")
# a node's last word by itself, where a node stands: in bold, in a table's first cell, in a list
BEFORE, AFTER = r"\*\*|^\| |, |\bor |\band |\buse ", r"\*\*| \||,| and | or | with "
SHORT = re.compile(rf"(?:{BEFORE})(Search|Report|Replay|Sampler)(?={AFTER})", re.MULTILINE)
TEXTS = [
    *(ROOT / "web" / "docs").glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    ROOT / "README.md",
    *(
        file
        for folder in ("nodes", "samplers", "rewards")
        for file in ROOT.glob(f"{folder}/**/*.py")
    ),
]


def unknown(text, is_page=True):
    """Names of nodes in a text that no node has."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    flat = re.sub(r'"\s*\n\s*f?"', "", prose)
    found = [match.group() for match in LONG.finditer(flat)]
    wrong = [one for one in found if not any(f" {one}".endswith(f" {name}") for name in SHOWN)]
    return wrong + ([match.group(1) for match in SHORT.finditer(flat)] if is_page else [])


def test_every_node_that_is_named_exists():
    found = {
        file.relative_to(ROOT).as_posix(): unknown(
            file.read_text(encoding="utf-8"), file.suffix == ".md"
        )
        for file in TEXTS
    }
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("take **RBF Search** or **Search**.", ["Search"]),
        ("| RBF Search, Search, Search Sampler | one |", ["Search"]),
        ("| Report | the record |", ["Report"]),
        ('"use the Reward "\n    "Report of it"', ["Reward Report"]),
        ("connect a Noise Strategy to Reward Search (Advanced)", ["Noise Strategy"]),
        ("The Search Strategy of **Reward Search (Advanced)**, and Search over Paths", []),
    ],
)
def test_a_name_that_no_node_has_is_found(text, names):
    assert unknown(text) == names


def test_every_node_has_a_help_page_that_begins_with_its_name():
    pages = {file.stem: file.read_text(encoding="utf-8") for file in ROOT.glob("web/docs/*.md")}
    assert set(pages) == set(SCHEMA), "write web/docs/ID.md, or run: python scripts/dev.py schema"
    for node, shown in SCHEMA.items():
        assert pages[node].startswith(f"# {shown['display_name']}\n"), node


def test_every_node_that_is_written_is_listed():
    """A module whose NODES nobody lists is absent without a word."""
    written = {
        name
        for file in (ROOT / "nodes").rglob("*.py")
        for name in re.findall(r'node_id="(\w+)"', file.read_text(encoding="utf-8"))
    }
    assert written == set(SCHEMA), (
        "list the module in MODULES of nodes/extension.py or FAMILIES of "
        "nodes/rewards/__init__.py, then run: python scripts/dev.py schema"
    )
