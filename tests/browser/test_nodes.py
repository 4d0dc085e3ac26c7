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


def test_every_node_can_be_added(frontend, node_ids):
    assert node_ids
    frontend.page.evaluate("() => window.app.rootGraph.clear()")
    for name in node_ids:
        widgets = frontend.page.evaluate(ADD, name)
        assert [widget for widget, is_empty in widgets if is_empty] == []
    frontend.settle()
    assert frontend.problems == []
    assert frontend.page.evaluate("() => window.app.rootGraph.nodes.length") == len(node_ids)


FETCH = "async path => { const got = await fetch(path); return [got.status, await got.text()] }"


def test_every_help_page_is_where_the_editor_looks(frontend, node_ids):
    for name in node_ids:
        path = f"/extensions/flowsearch/docs/{name}.md"
        status, text = frontend.page.evaluate(FETCH, path)
        assert (status, text.strip() != "") == (200, True), name
