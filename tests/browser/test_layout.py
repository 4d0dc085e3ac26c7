"""No two nodes of an example overlap, as opened and after a run, in both ways of drawing.

`python scripts/dev.py layout` writes the places, from what is measured here.
"""

import itertools
import json
import os
from pathlib import Path

import pytest
from examples import EXAMPLES, FOLDER, named_weights, read

from devtools.layout import GAP_X, arrange

SLACK = 4.0  # pixels that rounding and borders may share
EVALUATIONS = 24  # of each search: what a run leaves on the nodes is as large after few
LESS = """most => {
    for (const node of window.app.rootGraph.nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name === "evaluations") widget.value = Math.min(widget.value, most);
}"""


def overlaps(rectangles):
    """Pairs of nodes that share more than a border, and how much of both directions."""
    found = []
    for (a, one), (b, other) in itertools.combinations(rectangles.items(), 2):
        shared = [
            min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])
            for i in (0, 1)
        ]
        if min(shared) > SLACK:
            found.append((a, b, *(round(x) for x in shared)))
    return found


def measure(page, workflow, runs):
    """Rectangles of a workflow's nodes: {way of drawing: {"opened" or "run": rectangles}}."""
    found = {}
    for how in ("canvas", "vue"):
        page.draw(how)
        page.load(workflow)
        found[how] = {"opened": page.rectangles()}
    if runs:
        page.page.evaluate(LESS, EVALUATIONS)
        page.run()
        for how in ("vue", "canvas"):
            page.draw(how)
            found[how]["run"] = page.rectangles()
    return found


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_no_two_nodes_overlap(one_page, file):
    runs = not named_weights(read(FOLDER / "api" / file.name))
    found = measure(one_page, read(file), runs)
    assert one_page.problems == []
    if folder := os.environ.get("FLOWSEARCH_WRITE_LAYOUT"):
        (Path(folder) / file.name).write_text(json.dumps(found), encoding="utf-8")
        return
    wrong = {
        (how, state): pairs
        for how, states in found.items()
        for state, rectangles in states.items()
        if (pairs := overlaps(rectangles))
    }
    assert wrong == {}, "python scripts/dev.py layout places them"


def test_an_overlap_is_noticed(one_page):
    at = {"PreviewAny": [0, 30], "EmptyLatentImage": [100, 90], "KSamplerSelect": [600, 30]}
    one_page.draw("canvas")
    one_page.page.evaluate(
        """at => {
            window.app.rootGraph.clear();
            for (const [type, pos] of Object.entries(at)) {
                const node = LiteGraph.createNode(type);
                [node.pos, node.size] = [pos, [300, 150]];
                window.app.rootGraph.add(node);
            }
        }""",
        at,
    )
    one_page.settle()
    found = one_page.rectangles()
    assert [pair[2:] for pair in overlaps(found)] == [(200, 120)]
    one_page.draw("vue")
    assert [pair[2] for pair in overlaps(one_page.rectangles())] == [200]


def test_columns_stand_from_left_to_right():
    nodes = [{"id": i, "type": kind} for i, kind in enumerate(["A", "B", "C", "Note", "D"])]
    links = [[1, 0, 0, 1, 0, "X"], [2, 1, 0, 2, 1, "X"], [3, 4, 0, 2, 0, "X"]]
    places = arrange(nodes, links, dict.fromkeys(range(5), (100.0, 50.0)))
    column = {node: x // (100 + GAP_X) for node, (x, _) in places.items()}
    assert column == {0: 0, 3: 0, 1: 1, 4: 1, 2: 2}
    assert places[3][1] < places[0][1], "a note comes first"
    assert places[4][1] < places[1][1], "as the sockets that they are connected to"
