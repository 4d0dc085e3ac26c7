"""Every node of the pack's list arrives in the real server, complete and as it was frozen.

One bad schema hides that node and all after it with a single line in the log, so the list itself is
compared with what the server knows. The snapshot tests/data/schema.json is rewritten only by
`python scripts/dev.py schema`; saved workflows depend on what it holds.
"""

import asyncio
import importlib
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SNAPSHOT = ROOT / "tests" / "data" / "schema.json"
COMMAND = "python scripts/dev.py schema"
LABELS = ROOT / "locales" / "en" / "nodeDefs.json"
SOCKETS = {
    "held_out": "held-out reward {} (only reported)",
    "references": "reference {}",
    "rewards": "reward {} (decides)",
}
LABELLED = 8  # sockets of a list that grows
KEPT = ("default", "min", "max", "step", "round", "multiline", "advanced", "names", "prefix")


@pytest.fixture(scope="module")
def classes():
    """The pack's node classes, in the order of the extension's list."""
    extension = importlib.import_module("flowsearch.nodes.extension").Extension()
    return asyncio.run(extension.get_node_list())


@pytest.fixture(scope="module")
def everything(server):
    return server.object_info()


@pytest.fixture(scope="module")
def ours(everything):
    return {
        name: info
        for name, info in everything.items()
        if info["python_module"] == "custom_nodes.flowsearch"
    }


def inputs(groups: dict, prefix: str = "") -> Iterator[tuple[str, str, object, dict]]:
    """Yield (path, required or optional, type, settings) of every input, nested ones too."""
    for group in ("required", "optional"):
        for name, (kind, *rest) in groups.get(group, {}).items():
            settings = rest[0] if rest else {}
            path = prefix + name
            yield path, group, kind, settings
            if "template" in settings:
                yield from inputs(settings["template"]["input"], f"{path}[].")
            for option in settings.get("options", ()):
                if isinstance(option, dict) and "inputs" in option:
                    yield from inputs(option["inputs"], f"{path}={option['key']}.")


def frozen(info: dict, host_lists: dict[str, list]) -> dict:
    """What a saved workflow depends on, of one node; the host's own lists go in by name."""
    table = {}
    for path, group, kind, settings in inputs(info["input"]):
        row = {"type": kind, "group": group}
        for source in (settings, settings.get("template", {})):
            row |= {key: source[key] for key in KEPT if key in source}
        values = settings.get("options", kind if isinstance(kind, list) else None)
        if values is not None:
            keys = [item["key"] if isinstance(item, dict) else item for item in values]
            named = [name for name, known in host_lists.items() if keys == known]
            row["options"] = named[0] if named else keys
            row["type"] = "COMBO" if isinstance(kind, list) else kind
        table[path] = row
    outputs = [list(pair) for pair in zip(info["output_name"], info["output"], strict=True)]
    return {"display_name": info["display_name"], "inputs": table, "outputs": outputs}


def combo(info: dict, name: str) -> list:
    kind, *rest = info["input"]["required"][name]
    return kind if isinstance(kind, list) else rest[0]["options"]


def test_every_node_of_the_list_is_known_to_the_server(classes, ours, server):
    listed = [cls.GET_SCHEMA().node_id for cls in classes]
    assert listed, "the extension lists no nodes"
    missing = [node for node in listed if node not in ours]
    log = server.server.log.read_text(encoding="utf-8", errors="replace")
    said = [line for line in log.splitlines() if "flowsearch" in line.lower()]
    assert not missing, f"{missing[0]} and all after it are missing; the log says: {said}"
    assert sorted(listed) == sorted(ours)


def test_ids_are_prefixed_and_unique(classes):
    listed = [cls.GET_SCHEMA().node_id for cls in classes]
    assert len(set(listed)) == len(listed)
    assert [node for node in listed if not node.startswith("FlowSearch")] == []


def test_schema_equals_the_snapshot(everything, ours):
    sampler = everything["KSampler"]
    host_lists = {
        "the host's schedulers": combo(sampler, "scheduler"),
        "the host's samplers": combo(sampler, "sampler_name"),
    }
    found = {name: frozen(ours[name], host_lists) for name in sorted(ours)}
    text = json.dumps(found, indent=1) + "\n"
    if os.environ.get("FLOWSEARCH_WRITE_SCHEMA"):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert SNAPSHOT.is_file(), f"there is no snapshot yet: {COMMAND}"
    committed = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    # as text, because the order of inputs matters: widget values are saved by position
    changed = sorted(
        name
        for name in found.keys() | committed
        if json.dumps(found.get(name)) != json.dumps(committed.get(name))
    )
    assert not changed, (
        f"{changed} differ from tests/data/schema.json. Saved workflows depend on it. If the "
        f"change is meant, run `{COMMAND}`, commit the file and say so in the commit"
    )


def labels(ours: dict) -> dict:
    """What the page calls and says of the sockets of lists that grow, as it looks for it."""
    found = {}
    for name, info in sorted(ours.items()):
        for path, _, _, settings in inputs(info["input"]):
            prefix = settings.get("template", {}).get("prefix")
            if prefix is not None:
                found[name] = {
                    "inputs": {
                        f"{path}_{prefix}{number}": {
                            "name": SOCKETS[path].format(number + 1),
                            "tooltip": settings["tooltip"],
                        }
                        for number in range(LABELLED)
                    }
                }
    return found


def test_sockets_of_growing_lists_say_what_they_do(ours, server):
    """The page asks its translations for those, and not the node's schema."""
    found = labels(ours)
    if os.environ.get("FLOWSEARCH_WRITE_SCHEMA"):
        LABELS.parent.mkdir(parents=True, exist_ok=True)
        LABELS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert json.loads(LABELS.read_text(encoding="utf-8")) == found, COMMAND
    served = server.get("/i18n")["en"]["nodeDefs"]
    assert {name: served[name] for name in found} == found
    assert set(found) > {"FlowSearchRewardSearch", "FlowSearchCombineRewards"}
    texts = [
        text
        for node in found.values()
        for each in node["inputs"].values()
        for text in each.values()
    ]
    assert not [text for text in texts if set("@${}|%") & set(text)], "its own signs"


def test_every_node_and_input_explains_itself(ours):
    silent = [
        f"{name}.{path}"
        for name, info in ours.items()
        for path, _, _, settings in inputs(info["input"])
        if "[]." not in path and not settings.get("tooltip", "").strip()
    ]
    assert silent == []
    assert [name for name, info in ours.items() if not info["description"].strip()] == []


def test_names_of_outputs_are_written_as_those_of_inputs_are(ours):
    """Lower case, words joined by underscores; a wire of our own joins two equal names."""
    named = [(node, name) for node, info in ours.items() for name in info["output_name"]]
    assert [
        pair for pair in named if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", pair[1])
    ] == []
    taken: dict[str, set[str]] = {}
    for info in ours.values():
        for path, _, kind, _ in inputs(info["input"]):
            for one in kind.split(",") if isinstance(kind, str) else ():
                taken.setdefault(one, set()).add(re.sub(r".*[.=]", "", path))
    for node, info in ours.items():
        for kind, name in zip(info["output"], info["output_name"], strict=True):
            if kind.startswith("FLOW_"):
                assert name in taken[kind], f"{node} gives {name}, which no {kind} input is called"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("sde sampler", "StochasticSampler"),
        ("ksampler", "RBFSearch RewardSearch"),
        ("seed search", "RBFSearch RewardSearch Search SearchSampler"),
        ("generate until", "RBFSearch RewardSearch Search SearchSampler"),
        ("upscale search", "SearchSampler"),
        ("pick best", "RewardSearch ScoreImages"),
        ("choose best", "RewardSearch ScoreImages"),
    ],
)
def test_what_people_type_finds_the_node(ours, words, wanted):
    found = {name for name, info in ours.items() if words in info["search_aliases"]}
    assert {f"FlowSearch{name}" for name in wanted.split()} <= found


def test_every_node_has_a_help_page_that_the_server_serves(ours, server):
    for name in ours:
        page = ROOT / "web" / "docs" / f"{name}.md"
        assert page.is_file(), f"web/docs/{name}.md is missing"
        with urllib.request.urlopen(f"{server.url}/extensions/flowsearch/docs/{name}.md") as answer:
            assert answer.read() == page.read_bytes()


def test_no_help_page_is_left_over(ours):
    pages = {page.stem for page in (ROOT / "web" / "docs").glob("*.md")}
    assert sorted(pages - set(ours)) == []


def test_nested_inputs_are_walked():
    """The walker that the tests above rely on sees inputs inside a DynamicCombo and an Autogrow."""
    leaf = {"required": {"leaf": ["FLOAT", {"default": 1.0}]}}
    groups = {
        "required": {
            "law": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "ode", "inputs": leaf}]}],
            "more": ["COMFY_AUTOGROW_V3", {"template": {"input": leaf, "prefix": "r"}}],
        }
    }
    assert [row[0] for row in inputs(groups)] == ["law", "law=ode.leaf", "more", "more[].leaf"]
