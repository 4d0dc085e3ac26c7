"""What the pack's one script does: sockets of its own have colours, new nodes show their titles."""

SOCKETS = (
    "FLOW_REWARD",
    "FLOW_STRATEGY",
    "FLOW_NOISE_LAW",
    "FLOW_REPORT",
    "FLOW_GUIDANCE",
    "FLOW_ENCODER",
    "FLOW_LANGUAGE_MODEL",
)
COLOURS = """types => types.map(type => {
    const style = getComputedStyle(document.documentElement);
    return [
        window.app.canvas.constructor.link_type_colors[type],
        window.app.canvas.default_connection_color_byType[type],
        style.getPropertyValue("--color-datatype-" + type),
    ];
})"""
PALETTE = """async name => {
    await window.app.extensionManager.setting.set("Comfy.ColorPalette", name);
}"""
TITLE = "() => LiteGraph.NODE_TITLE_COLOR"  # a palette gives it too
TITLES = """() => {
    const context = document.createElement("canvas").getContext("2d");
    const ours = Object.keys(LiteGraph.registered_node_types).filter(id => /^FlowSearch/.test(id));
    return ours.map(id => {
        const node = LiteGraph.createNode(id);
        context.font = node.titleFontStyle;
        const room = node.size[0] - 2 * LiteGraph.NODE_TITLE_HEIGHT;  // what the page draws it in
        return [id, context.measureText(node.title).width <= room];
    });
}"""


def test_sockets_have_colours_of_their_own_in_both_ways_of_drawing(drawn):
    titles = []
    for palette in ("light", "dark"):
        drawn.page.evaluate(PALETTE, palette)
        drawn.draw_frames()
        titles.append(drawn.page.evaluate(TITLE))
        rows = drawn.page.evaluate(COLOURS, list(SOCKETS))
        assert [len(set(row)) for row in rows] == [1] * len(SOCKETS), (palette, rows)
        assert len({row[0] for row in rows} - {"", None}) == len(SOCKETS), palette
    assert titles[0] != titles[1], "the palettes were not loaded"


def test_every_socket_of_the_pack_has_a_colour(server):
    ours = [i for name, i in server.object_info().items() if name.startswith("FlowSearch")]
    given = {kind for info in ours for kind in info["output"] if kind.startswith("FLOW_")}
    assert given == set(SOCKETS)


def test_a_new_node_shows_its_whole_title(drawn):
    titles = drawn.page.evaluate(TITLES)
    assert titles
    assert [name for name, fits in titles if not fits] == []


def test_the_script_registers_under_the_packs_name(editor):
    names = editor.page.evaluate("() => window.app.extensions.map(one => one.name)")
    assert [name for name in names if "flowsearch" in name.lower()] == ["flowsearch.appearance"]
