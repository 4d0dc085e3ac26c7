"""How overlaps are noticed and places found; test_workflows.py looks at the examples so."""

from editor import overlaps

from devtools.layout import GAP_X, arrange


def test_an_overlap_is_noticed(editor):
    at = {"PreviewAny": [0, 30], "EmptyLatentImage": [100, 90], "KSamplerSelect": [600, 30]}
    editor.draw("canvas")
    editor.page.evaluate(
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
    editor.settle()
    found = editor.rectangles()
    assert [pair[2:] for pair in overlaps(found)] == [(200, 120)]
    editor.draw("vue")
    assert [pair[2] for pair in overlaps(editor.rectangles())] == [200]


def test_columns_stand_from_left_to_right():
    nodes = [{"id": i, "type": kind} for i, kind in enumerate(["A", "B", "C", "Note", "D"])]
    links = [[1, 0, 0, 1, 0, "X"], [2, 1, 0, 2, 1, "X"], [3, 4, 0, 2, 0, "X"]]
    places = arrange(nodes, links, dict.fromkeys(range(5), (100.0, 50.0)))
    column = {node: x // (100 + GAP_X) for node, (x, _) in places.items()}
    assert column == {0: 0, 3: 0, 1: 1, 4: 1, 2: 2}
    assert places[3][1] < places[0][1], "a note comes first"
    assert places[4][1] < places[1][1], "as the sockets that they are connected to"
