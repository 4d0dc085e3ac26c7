"""Prompts that failed once, or that others were reported to fail on, queued on a real server.

tests/data/reported_prompts.json has what use-everywhere sends, the host's default latent on the
embedded model, and a budget of one evaluation; the rest is what subgraphs, muted nodes, clients and
seed nodes of other packs make of a prompt. docs/OTHER_PACKS.md names these tests.
"""

import copy
import json
from pathlib import Path

import pytest
from PIL import Image

DATA = json.loads(
    (Path(__file__).parents[2] / "data" / "reported_prompts.json").read_text(encoding="utf-8")
)
FEW = {"steps": 3, "evaluations": 6, "target": "never"}
REFUSED = ("value_smaller_than_min", "value_bigger_than_max", "invalid_input_type")


def prompt(case="", **given):
    """A reported prompt in small, with the report's text as an output."""
    made = copy.deepcopy(DATA["base"])
    made["9"] = {"class_type": "PreviewAny", "inputs": {"source": ["8", 1]}}
    for node, inputs in DATA["cases"].get(case, {}).items():
        made[node]["inputs"] |= inputs
    made["6"]["inputs"] |= given
    return made


def notes(outputs, node="9"):
    return json.loads(outputs[node]["text"][0])["notes"]


def picture(server, outputs, node="7"):
    saved = outputs[node]["images"][0]
    with Image.open(server.server.base / "output" / saved["filename"]) as image:
        return image.tobytes(), image.info


def failure(server, graph):
    entry = server.wait(server.queue(graph))
    (error,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    return error["exception_message"]


@pytest.fixture(scope="module")
def plain(server):
    """The picture of the base by itself."""
    return picture(server, server.run(prompt(**FEW)))[0]


def test_a_vae_on_every_socket_is_a_search_without_it(server, plain):
    outputs = server.run(prompt("broadcast_vae", **FEW))
    assert picture(server, outputs)[0] == plain
    assert [note for note in notes(outputs) if "audio_vae decodes pictures and is not used" in note]


def test_the_reward_on_the_held_out_socket_is_named(server, plain):
    outputs = server.run(prompt("broadcast_reward", **FEW))
    assert picture(server, outputs)[0] == plain
    assert [note for note in notes(outputs) if "is the reward that was searched for" in note]


def test_a_prompt_of_before_held_out_sockets_were_renamed_is_told_their_names(server):
    graph = prompt(**FEW)
    graph["6"]["inputs"]["held_out.reward0"] = ["5", 0]
    assert "'held_out' takes at most 100, held_out0 to held_out99" in failure(server, graph)


def test_a_prompt_of_before_rbf_had_modes_is_adaptive(server, plain):
    assert "rbf" not in DATA["base"]["6"]["inputs"]
    defaults = {"rbf": "adaptive", "rbf.width": 4, "rbf.q": 0.85, "rbf.rollover": True}
    assert picture(server, server.run(prompt(**FEW, **defaults)))[0] == plain


def test_a_budget_of_one_gives_a_picture_and_says_on_the_node_what_it_is(server):
    outputs = server.run(prompt("budget_of_one"))
    assert len({*picture(server, outputs)[0]}) > 8, "more than one colour"
    assert [note for note in notes(outputs) if "thinned to 1" in note]


def test_the_hosts_default_latent_on_the_embedded_model_is_named(server):
    said = failure(server, prompt("latent_that_does_not_fit"))
    assert "makes pictures of 64 x 64 and was given latents of 512 x 512" in said


# ---- subgraphs: the page gives their nodes ids such as 4:2:6 ----


def renamed(graph, names):
    """A prompt with other ids."""

    def link(value):
        return [names[value[0]], value[1]] if isinstance(value, list) else value

    return {
        names[node]: {**held, "inputs": {k: link(v) for k, v in held["inputs"].items()}}
        for node, held in graph.items()
    }


def test_a_search_inside_subgraphs_is_the_search_outside(server, plain):
    graph = prompt(**FEW, checkpoint_seconds=0.0)
    names = {node: node if node in "79" else f"4:12:{node}" for node in graph}
    outputs = server.run(renamed(graph, names))
    found, info = picture(server, outputs)
    assert found == plain
    said = json.loads(info["prompt"])["4:12:6"]["_meta"]["flowsearch"]
    assert said["evaluations"] == FEW["evaluations"]
    kept = [*(server.server.base / "user" / "__flowsearch" / "checkpoints").iterdir()]
    assert not [file.name for file in kept if ":" in file.name], "no such name on Windows"


# ---- muted and bypassed nodes: the page leaves them out of what it sends ----


def test_a_muted_held_out_reward_is_a_search_without_it(server, plain):
    graph = prompt(**FEW)
    assert "held_out.held_out0" not in graph["6"]["inputs"]
    graph["5b"] = copy.deepcopy(graph["5"])  # and what nothing asks for does not run
    assert picture(server, server.run(graph))[0] == plain


def test_a_muted_reward_is_the_hosts_missing_input(server):
    graph = prompt(**FEW)
    del graph["5"], graph["6"]["inputs"]["reward"]
    complaints = server.complaints(graph)
    assert complaints == {("FlowSearchRBFSearch", "reward"): "required_input_missing"}


# ---- seeds ----


@pytest.mark.parametrize("seed", [0, 2**64 - 1, "7", 7.0])
def test_a_seed_of_the_hosts_range_is_one_however_it_is_written(server, seed):
    found = picture(server, server.run(prompt(**FEW, seed=seed)))[0]
    assert len({*found}) > 8
    if seed in ("7", 7.0):
        assert found == picture(server, server.run(prompt(**FEW, seed=7)))[0]


@pytest.mark.parametrize("seed", [-1, 2**64, "random", None, float("1e20")])
def test_another_seed_is_refused_before_anything_runs(server, seed):
    found = server.complaints(prompt(**FEW, seed=seed))
    assert found[("FlowSearchRBFSearch", "seed")] in REFUSED, found


def test_a_seed_by_a_wire_that_is_none_is_named_with_its_range(server):
    graph = prompt(**FEW, seed=["12", 0])
    graph["12"] = {"class_type": "PrimitiveInt", "inputs": {"value": -1}}
    assert f"'seed' is -1; give it a whole number from 0 to {2**64 - 1}" in failure(server, graph)
    graph["12"] = {"class_type": "PrimitiveFloat", "inputs": {"value": 7.5}}
    assert server.complaints(graph) == {("FlowSearchRBFSearch", "seed"): "return_type_mismatch"}


# ---- one picture out of a batch ----


def test_latent_from_batch_gives_the_search_of_that_picture_and_no_kept_one(server, plain):
    graph = prompt(**FEW)
    graph["4"]["inputs"]["batch_size"] = 2
    both = server.run(graph)["7"]["images"]
    graph["6"]["inputs"]["latent_image"] = ["13", 0]
    found = []
    for row, saved in enumerate(both):
        inputs = {"samples": ["4", 0], "batch_index": row, "length": 1}
        graph["13"] = {"class_type": "LatentFromBatch", "inputs": inputs}
        found.append(picture(server, server.run(graph))[0])
        assert found[row] == picture(server, {"7": {"images": [saved]}})[0]
    assert found[0] == plain
    assert found[1] != plain
