"""Every example workflow opens in the real editor and says the same as its API form.

`example_workflows/NAME.json` is what the editor saves, `example_workflows/api/NAME.json` what it
sends. The second is rewritten from the first only by `python scripts/dev.py workflows`. Compared
are node ids, class names, titles, links and every input's value.
"""

import json
import os
from collections.abc import Iterator

import pytest
from examples import EXAMPLES, FOLDER, read

COMMAND = "python scripts/dev.py workflows"


def node_types(workflow: dict) -> Iterator[str]:
    """Yield the type of every node; those inside subgraphs too."""
    inside = (workflow.get("definitions") or {}).get("subgraphs", [])
    local = {graph["id"] for graph in inside}
    for graph in (workflow, *inside):
        yield from (node["type"] for node in graph["nodes"] if node["type"] not in local)


def test_there_are_example_workflows():
    assert EXAMPLES, f"{FOLDER} holds no workflow"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_opens_and_says_the_same_as_its_api_form(editor, file):
    workflow = read(file)
    missing = sorted(set(node_types(workflow)) - editor.known_types())
    assert missing == []
    editor.load(workflow)
    assert editor.problems == []
    found = editor.api()
    api = FOLDER / "api" / file.name
    if os.environ.get("FLOWSEARCH_WRITE_WORKFLOWS"):
        api.parent.mkdir(exist_ok=True)
        api.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert api.is_file(), f"{api} is missing: {COMMAND}"
    assert found == read(api), f"{api.name} differs from what the editor sends: {COMMAND}"
    editor.load(editor.workflow())  # as saved and opened again
    assert editor.api() == found


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


def test_the_editor_converts_a_known_workflow(frontend):
    """The machinery above is right where the answer is known by hand."""
    frontend.load(TINY)
    assert frontend.problems == []
    assert frontend.api() == {
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


def test_a_missing_node_is_noticed(frontend):
    broken = json.loads(json.dumps(TINY).replace("SaveLatent", "NoSuchNode"))
    assert set(node_types(broken)) - frontend.known_types() == {"NoSuchNode"}


def test_a_console_error_is_noticed(frontend):
    with frontend.page.expect_console_message():
        frontend.page.evaluate("() => console.error('planted')")
    assert [line for line in frontend.problems if "planted" in line]
