"""The README says what is in the records, and names nodes as they are called."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COUNT = json.loads((ROOT / "benchmarks" / "results" / "count.json").read_text(encoding="utf-8"))


def cells(first: str) -> list[str]:
    """The cells of the first row of a table that begins so, without the first."""
    line = next(line for line in README.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("| ").split("|")][1:]


@pytest.mark.parametrize(
    ("row", "method"),
    [
        ("**default**, 8 steps", "default"),
        ("Best-of-N, 8 steps", "Best-of-N, 8 steps"),
        ("Best-of-N, 12 steps", "Best-of-N, 12 steps"),
    ],
)
def test_shares_of_right_pictures_are_those_of_the_record(row, method):
    budgets = [int(cell) for cell in cells("evaluations")]
    found = {
        line["evaluations"]: line["right"]
        for line in COUNT["rows"]
        if (line["prompts"], line["method"]) == ("hard (100)", method)
    }
    assert cells(row) == [f"{found[budget]:.2f}".lstrip("0") for budget in budgets]


def test_pictures_scored_are_those_of_the_record():
    asked = {
        line["method"]: round(line["reward calls"])
        for line in COUNT["rows"]
        if (line["prompts"], line["evaluations"]) == ("hard (100)", 125)
    }
    told = re.search(r"\((\d+) pictures scored at 125 evaluations, against (\d+)\)", README)
    assert [int(number) for number in told.groups()] == [
        asked["default"],
        asked["Best-of-N, 8 steps"],
    ]


def test_nodes_are_called_what_they_are_called():
    """Every row of the table that says what to use when names nodes that there are."""
    names = {
        found
        for file in (ROOT / "nodes").rglob("*.py")
        for found in re.findall(r'display_name="([A-Z][^"]*)"', file.read_text(encoding="utf-8"))
    }
    table = README[README.index("## What to use when") : README.index("Which strategy")]
    rows = re.findall(r"^\| ([A-Z][^|]*) \|", table, re.MULTILINE)
    told = [name for row in rows for name in row.split(", ")]
    assert len(told) > 15
    assert [name for name in told if name not in names] == []
