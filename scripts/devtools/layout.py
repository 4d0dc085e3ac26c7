"""Lay the example workflows out: columns from left to right, so that nothing overlaps after a run.

How large a node is, only the page knows: it depends on the way of drawing, on the front end, and on
the texts and pictures that a run leaves on it. tests/browser/test_workflows.py measures, this
places.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

TITLE = 30  # the editor keeps the place of a node's body; its title stands above that
GAP_X, GAP_Y = 70, 44  # a badge of the canvas stands above a title
NOTES = ("MarkdownNote", "Note")
SWEEPS = 4

Size = tuple[float, float]
Measured = Mapping[str, Mapping[str, Mapping[str, list[float]]]]
"""Way of drawing, then "opened" or "run", then node id, to x, y, width and height."""


def lay_out(folder: Path, measured: Mapping[str, Measured]) -> list[str]:
    """Write places into workflows.

    Args:
        folder: Where the workflows are.
        measured: Name of a workflow to what was measured of it.

    Returns:
        Names of the workflows that have changed.
    """
    documents = {name: json.loads(_text(folder / f"{name}.json")) for name in measured}
    growth = growths((documents[name], measured[name]) for name in measured)
    changed = []
    for name, document in documents.items():
        sizes = sizes_of(document, measured[name], growth)
        places = arrange(document["nodes"], document["links"], sizes)
        for node in document["nodes"]:
            node["pos"] = places[node["id"]]
        document.setdefault("extra", {})["ds"] = {"scale": 0.6, "offset": [60, 120]}
        text = json.dumps(document, indent=1) + "\n"
        if text != _text(folder / f"{name}.json"):
            (folder / f"{name}.json").write_text(text, encoding="utf-8")
            changed.append(name)
    return changed


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def growths(measured: Iterable[tuple[dict[str, Any], Measured]]) -> dict[str, float]:
    """By how much a run makes nodes higher, from those workflows that were run.

    Args:
        measured: Workflows in the editor's form, each with what was measured of it.

    Returns:
        A node's type to the most that one of them grew.
    """
    found: dict[str, float] = defaultdict(float)
    for document, ways in measured:
        kinds = {str(node["id"]): node["type"] for node in document["nodes"]}
        for states in ways.values():
            for node, (*_, height) in states.get("run", {}).items():
                grown = height - states["opened"][node][3]
                found[kinds[node]] = max(found[kinds[node]], grown)
    return found


def sizes_of(
    document: dict[str, Any], ways: Measured, growth: Mapping[str, float]
) -> dict[int, Size]:
    """The most room that each node of a workflow takes.

    Args:
        document: The workflow in the editor's form.
        ways: What was measured of it.
        growth: What a run adds where this one could not be run.

    Returns:
        Node id to width and height, the title among them.
    """
    sizes = {}
    for node in document["nodes"]:
        seen = [state[str(node["id"])] for states in ways.values() for state in states.values()]
        was_run = any("run" in states for states in ways.values())
        more = 0.0 if was_run else growth.get(node["type"], 0.0)
        sizes[node["id"]] = (max(each[2] for each in seen), max(each[3] for each in seen) + more)
    return sizes


def arrange(
    nodes: list[dict[str, Any]], links: list[list[Any]], sizes: Mapping[int, Size]
) -> dict[int, list[int]]:
    """Place nodes in columns: what a node needs stands to its left.

    Args:
        nodes: The editor's nodes.
        links: The editor's links: id, from, its slot, to, its slot, type.
        sizes: Node id to width and height.

    Returns:
        Node id to the place that the editor keeps.
    """
    edges = [(int(a), int(i), int(b), int(j)) for _, a, i, b, j, _ in links]
    notes = [node["id"] for node in nodes if node["type"] in NOTES]
    column = columns_of([node["id"] for node in nodes], edges)
    order = ordered(column, edges, notes)
    places, x = {}, 0.0
    for members in order:
        y = 0.0
        for node in members:
            places[node] = [round(x), round(y) + TITLE]
            y += sizes[node][1] + GAP_Y
        x += max(sizes[node][0] for node in members) + GAP_X
    return places


def columns_of(nodes: list[int], edges: list[tuple[int, int, int, int]]) -> dict[int, int]:
    """The column of each node: after all that it needs, and what needs nothing next to its user.

    Args:
        nodes: Node ids.
        edges: From, its slot, to, its slot.

    Returns:
        Node id to column, from 0.
    """
    column = dict.fromkeys(nodes, 0)
    for _ in nodes:  # the longest way takes at most as many rounds
        for a, _, b, _ in edges:
            column[b] = max(column[b], column[a] + 1)
    fed = {b for _, _, b, _ in edges}
    for node in nodes:
        users = [column[b] for a, _, b, _ in edges if a == node]
        if node not in fed and users:
            column[node] = min(users) - 1
    return column


def ordered(
    column: Mapping[int, int], edges: list[tuple[int, int, int, int]], notes: list[int]
) -> list[list[int]]:
    """Order each column so that links cross little: by the sockets at their other ends.

    Args:
        column: Node id to column.
        edges: From, its slot, to, its slot.
        notes: Nodes that come first.

    Returns:
        The columns, each from top to bottom.
    """
    lists = [
        sorted(node for node in column if column[node] == c)
        for c in range(max(column.values()) + 1)
    ]
    rank = {node: float(i) for members in lists for i, node in enumerate(members)}
    for sweep in range(SWEEPS):
        back = sweep % 2 == 0  # from the right, by users; then from the left, by what is used
        for members in reversed(lists) if back else lists:
            key = {}
            for node in members:
                ends = [
                    rank[b] + j / 100 if back else rank[a] + i / 100
                    for a, i, b, j in edges
                    if node == (a if back else b)
                ]
                key[node] = sum(ends) / len(ends) if ends else rank[node]
            members.sort(key=lambda node: (node not in notes, key[node], node))
            rank.update({node: float(i) for i, node in enumerate(members)})
    return lists
