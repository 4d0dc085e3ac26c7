"""Every example opens in the real editor, says the same as its API form, and nothing overlaps.

`example_workflows/NAME.json` is what the editor saves, `example_workflows/api/NAME.json` what it
sends. The second is rewritten from the first only by `python scripts/dev.py workflows`. Compared
are node ids, class names, titles, links and every input's value. Places of nodes are written by
`python scripts/dev.py layout`, from what is measured here in both ways of drawing, as opened and
after a run.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from editor import WAYS, overlaps
from examples import EXAMPLES, FOLDER, named_weights, read

WORKFLOWS, LAYOUT = (f"python scripts/dev.py {name}" for name in ("workflows", "layout"))
WRITES_WORKFLOWS = "FLOWSEARCH_WRITE_WORKFLOWS" in os.environ
IS_NEWEST = "FLOWSEARCH_FRONT_END" in os.environ
TELLING = {"01 Reward Search, start here", "09 Inspect what a model predicts on the way",
           "07 Invert a picture and translate it, Flux (needs weights)"}  # fmt: skip
# A run leaves pictures, cards and texts on the nodes after few of these too.
MOST = {"evaluations": 16, "steps": 4}
LESS = """most => {
    for (const node of window.app.rootGraph.nodes)
        for (const widget of node.widgets ?? [])
            if (widget.name in most) widget.value = Math.min(widget.value, most[widget.name]);
}"""


def node_types(workflow: dict) -> Iterator[str]:
    """Yield the type of every node; those inside subgraphs too."""
    inside = (workflow.get("definitions") or {}).get("subgraphs", [])
    local = {graph["id"] for graph in inside}
    for graph in (workflow, *inside):
        yield from (node["type"] for node in graph["nodes"] if node["type"] not in local)


def test_there_are_example_workflows():
    assert EXAMPLES, f"{FOLDER} holds no workflow"


def says_the_same(file, editor):
    """Compare what the page sends for the open workflow with the API form, or write that."""
    found, api = editor.api(), FOLDER / "api" / file.name
    if WRITES_WORKFLOWS:
        api.parent.mkdir(exist_ok=True)
        api.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert api.is_file(), f"{api} is missing: {WORKFLOWS}"
    assert found == read(api), f"{api.name} differs from what the editor sends: {WORKFLOWS}"


def is_run(file):
    """Whether an example is run: it can be, and no other page was seen to run it."""
    if WRITES_WORKFLOWS or (IS_NEWEST and file != EXAMPLES[0]):
        return False
    return not named_weights(read(FOLDER / "api" / file.name))


def ways(file):
    """In which ways of drawing an example is looked at: both, but in another page than the host's
    own only Nodes 2.0, which is taller, except for the first, the tallest node and the most nodes.
    """
    return WAYS if not IS_NEWEST or file.stem in TELLING else WAYS[1:]


def test_the_choice_for_another_page_is_of_examples():
    assert {file.stem for file in EXAMPLES} >= TELLING
    assert EXAMPLES[0].stem in TELLING


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_says_the_same_as_its_api_form_and_nothing_overlaps(editor, file):
    workflow = read(file)
    assert sorted(set(node_types(workflow)) - editor.known_types()) == []
    measured = {}
    for how in ways(file):
        editor.load(workflow, how)
        says_the_same(file, editor)
        measured[how] = {"opened": editor.rectangles()}
        workflow = editor.workflow()  # as saved and opened again
    if is_run(file):
        editor.page.evaluate(LESS, MOST)
        editor.run()
        for how in reversed(ways(file)):
            editor.draw(how)
            measured[how]["run"] = editor.rectangles()
    assert editor.problems == []
    if folder := os.environ.get("FLOWSEARCH_WRITE_LAYOUT"):
        (Path(folder) / file.name).write_text(json.dumps(measured), encoding="utf-8")
    if folder or WRITES_WORKFLOWS:
        return
    wrong = {
        (how, state): pairs
        for how, states in measured.items()
        for state, rectangles in states.items()
        if (pairs := overlaps(rectangles))
    }
    assert wrong == {}, f"{LAYOUT} places them"


def test_no_api_form_is_left_over():
    names = {file.name for file in EXAMPLES}
    assert sorted({file.name for file in (FOLDER / "api").glob("*.json")} - names) == []


TINY = {
    "last_node_id": 2,
    "last_link_id": 1,
    "nodes": [
        {
            "id": 1,
            "type": "EmptyLatentImage",
            "pos": [50, 50],
            "size": [210, 106],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": "LATENT", "type": "LATENT", "links": [1]}],
            "properties": {"Node name for S&R": "EmptyLatentImage"},
            "widgets_values": [64, 96, 3],
        },
        {
            "id": 2,
            "type": "SaveLatent",
            "pos": [400, 50],
            "size": [210, 58],
            "flags": {},
            "order": 1,
            "mode": 0,
            "inputs": [{"name": "samples", "type": "LATENT", "link": 1}],
            "outputs": [],
            "properties": {"Node name for S&R": "SaveLatent"},
            "widgets_values": ["latents/tiny"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "LATENT"]],
    "groups": [],
    "config": {},
    "extra": {},
    "version": 0.4,
}


def test_the_editor_converts_a_known_workflow(drawn):
    """The machinery above is right where the answer is known by hand."""
    drawn.load(TINY)
    assert drawn.problems == []
    assert drawn.api() == {
        "1": {
            "class_type": "EmptyLatentImage",
            "_meta": {"title": "Empty Latent Image"},
            "inputs": {"width": 64, "height": 96, "batch_size": 3},
        },
        "2": {
            "class_type": "SaveLatent",
            "_meta": {"title": "Save Latent"},
            "inputs": {"samples": ["1", 0], "filename_prefix": "latents/tiny"},
        },
    }


def test_a_missing_node_is_noticed(drawn):
    broken = json.loads(json.dumps(TINY).replace("SaveLatent", "NoSuchNode"))
    assert set(node_types(broken)) - drawn.known_types() == {"NoSuchNode"}


def test_a_console_error_is_noticed(drawn):
    with drawn.page.expect_console_message():
        drawn.page.evaluate("() => console.error('planted')")
    assert [line for line in drawn.problems if "planted" in line]
