"""What the page makes of files as old and new front ends save them, and of muted and bypassed nodes
and subgraphs, with nodes of ours in them; docs/OTHER_PACKS.md names these tests.

Values of widgets lie in a file as a bare list, so a file of an older version of a node has fewer.
"""

import copy
from typing import Any

DEMO, TEXT = "FlowSearchLoadDemo", "three red circles"


def node(number: int, kind: str, inputs: dict, outputs: list, values: list) -> dict:
    """A node as a front end of 2024 saved it: sockets only, values by position."""
    return {
        "id": number, "type": kind, "pos": [300 * (number % 4), 250 * (number // 4)],
        "size": {"0": 315, "1": 200}, "flags": {}, "order": number, "mode": 0,
        "inputs": [{"name": name, "type": type_, "link": link}
                   for name, (type_, link) in inputs.items()],
        "outputs": [{"name": name, "type": name, "links": links, "shape": 3, "slot_index": slot}
                    for slot, (name, links) in enumerate(outputs)],
        "properties": {"Node name for S&R": kind}, "widgets_values": values,
    }  # fmt: skip


def old(values: list[Any], count: list[Any]) -> dict:
    """A file of schema 0.4 with a search: its values, and those of the reward."""
    links = [
        (1, 1, 0, 8, 0, "MODEL"), (2, 8, 0, 6, 0, "MODEL"), (3, 1, 1, 2, 0, "CLIP"),
        (4, 2, 0, 6, 1, "CONDITIONING"), (5, 2, 0, 6, 2, "CONDITIONING"),
        (6, 4, 0, 6, 3, "LATENT"), (7, 1, 2, 6, 4, "VAE"), (8, 5, 0, 6, 5, "FLOW_REWARD"),
        (9, 6, 1, 7, 0, "IMAGE"), (10, 9, 0, 6, 6, "FLOW_REWARD"),
    ]  # fmt: skip
    sockets = {
        "model": ("MODEL", 2), "positive": ("CONDITIONING", 4), "negative": ("CONDITIONING", 5),
        "latent_image": ("LATENT", 6), "vae": ("VAE", 7), "reward": ("FLOW_REWARD", 8),
        "held_out.held_out0": ("FLOW_REWARD", 10),
    }  # fmt: skip
    nodes = [
        node(1, DEMO, {}, [("MODEL", [1]), ("CLIP", [3]), ("VAE", [7])], ["base"]),
        node(2, "CLIPTextEncode", {"clip": ("CLIP", 3)}, [("CONDITIONING", [4, 5])], [TEXT]),
        node(4, "EmptyLatentImage", {}, [("LATENT", [6])], [64, 64, 1]),
        node(5, "FlowSearchShapeCount", {}, [("FLOW_REWARD", [8])], count),
        node(6, "FlowSearchRewardSearch", sockets,
             [("LATENT", []), ("IMAGE", [9]), ("FLOW_REPORT", [])], values),
        node(7, "PreviewImage", {"images": ("IMAGE", 9)}, [], []),
        node(8, "FlowSearchInterpolantConversion", {"model": ("MODEL", 1)}, [("MODEL", [2])],
             ["ve"]),
        node(9, "FlowSearchShapeFidelity", {}, [("FLOW_REWARD", [10])], []),
    ]  # fmt: skip
    return {
        "last_node_id": 9, "last_link_id": 10, "nodes": nodes, "links": [*map(list, links)],
        "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


VALUES = [7, "fixed", 8, 1.5, "simple", 1, 48, "never"]
SET = {"seed": 7, "steps": 8, "cfg": 1.5, "scheduler": "simple", "denoise": 1, "evaluations": 48,
       "target": "never"}  # fmt: skip
LATER = {"score_size": 0, "seconds": 0, "reward_calls": 0, "top_k": 1, "rows": 0,
         "checkpoint_seconds": 30}  # fmt: skip
WIRED = {"model": ["8", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["4", 0],
         "vae": ["1", 2], "reward": ["5", 0], "held_out.held_out0": ["9", 0]}  # fmt: skip
MODE = """([id, mode]) => { window.app.rootGraph.getNodeById(id).mode = mode; }"""
MUTED, BYPASSED = 2, 4
INTO_SUBGRAPH = """ids => {
    const graph = window.app.rootGraph;
    return graph.convertToSubgraph(new Set(ids.map(id => graph.getNodeById(id)))).node.id;
}"""


def inputs(page, number="6"):
    assert page.problems == []
    return page.api()[number]["inputs"]


def test_a_file_of_schema_0_4_with_fewer_or_more_values_than_now_means_what_it_did(editor):
    for values, count in ((VALUES, [TEXT]), ([*VALUES, 0, 0, 0, 1, 0, 30, 5, "x"], [TEXT, "", 1])):
        editor.load(old(values, count))
        assert inputs(editor) == {**WIRED, **SET, **LATER}
        assert inputs(editor, "5") == {"prompt": TEXT, "targets": ""}


def test_a_file_of_schema_1_means_what_it_did(editor):
    editor.load(old(VALUES, [TEXT]))
    before = editor.api()
    saved = editor.page.evaluate("() => window.app.rootGraph.asSerialisable()")
    assert saved["version"] == 1
    editor.load(copy.deepcopy(saved))
    assert editor.problems == []
    assert editor.api() == before


def test_a_muted_reward_and_a_bypassed_model_node_are_left_out(editor):
    editor.load(old(VALUES, [TEXT]))
    editor.page.evaluate(MODE, [8, BYPASSED])
    editor.page.evaluate(MODE, [9, MUTED])
    wired = {k: v for k, v in WIRED.items() if k != "held_out.held_out0"}
    assert inputs(editor) == {**wired, "model": ["1", 0], **SET, **LATER}
    assert {"8", "9"}.isdisjoint(editor.api())


def test_a_bypassed_search_hands_its_latent_on(editor):
    workflow = old(VALUES, [TEXT])
    (search,) = [each for each in workflow["nodes"] if each["id"] == 6]
    search["outputs"][0]["links"] = [11]
    workflow["nodes"].append(node(10, "SaveLatent", {"samples": ("LATENT", 11)}, [], ["a"]))
    workflow["links"].append([11, 6, 0, 10, 0, "LATENT"])
    editor.load(workflow)
    editor.page.evaluate(MODE, [6, BYPASSED])
    assert inputs(editor, "10")["samples"] == ["4", 0]
    assert "6" not in editor.api()


def test_a_search_in_a_subgraph_is_sent_as_it_was_and_runs(editor):
    editor.load(old([*VALUES[:6], 4, "never"], [TEXT]))
    editor.page.evaluate(MODE, [8, BYPASSED])
    before = editor.api()
    number = editor.page.evaluate(INTO_SUBGRAPH, [5, 6, 9])
    inside = {each: f"{number}:{each}" for each in ("5", "6", "9")}

    def moved(value):
        return [inside.get(value[0], value[0]), value[1]] if isinstance(value, list) else value

    expected = {
        inside.get(key, key): {k: moved(v) for k, v in body["inputs"].items()}
        for key, body in before.items()
    }
    assert {key: body["inputs"] for key, body in editor.api().items()} == expected
    editor.run()
    assert editor.problems == []
