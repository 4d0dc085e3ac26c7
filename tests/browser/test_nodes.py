"""Every node of the pack can be put on the real canvas, and its help page opens there."""

import pytest


@pytest.fixture(scope="module")
def node_ids(server):
    return sorted(
        name
        for name, info in server.object_info().items()
        if info["python_module"] == "custom_nodes.flowsearch"
    )


ADD = """id => {
    const node = LiteGraph.createNode(id);
    window.app.rootGraph.add(node);
    return (node.widgets ?? []).map(widget => [widget.name, widget.value === undefined]);
}"""


def test_every_node_can_be_added(drawn, node_ids):
    assert node_ids
    drawn.page.evaluate("() => window.app.rootGraph.clear()")
    for name in node_ids:
        widgets = drawn.page.evaluate(ADD, name)
        assert [widget for widget, is_empty in widgets if is_empty] == []
    drawn.settle()
    assert drawn.problems == []
    assert len(drawn.rectangles()) == len(node_ids)


FETCH = """paths => Promise.all(paths.map(async path => {
    const got = await fetch(path);
    return [path, got.status, (await got.text()).trim() !== ""];
}))"""


def test_every_help_page_is_where_the_editor_looks(editor, node_ids):
    paths = [f"/extensions/flowsearch/docs/{name}.md" for name in node_ids]
    assert editor.page.evaluate(FETCH, paths) == [[path, 200, True] for path in paths]
