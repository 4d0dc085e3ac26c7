"""Whatever a workflow holds, the server answers, and what our nodes say of it is a sentence.

Widgets by themselves, then workflows that are drawn wrong (support/generated_graphs.py), with
outputs of somebody else's pack, which the host lets into any socket. `dev.py soak` draws more.
"""

import os
import uuid

import pytest
from foreign_pack import THINGS
from generated_graphs import Graphs, inputs_of

from devtools.server import PACK

GRAPHS = int(os.environ.get("FLOWSEARCH_GRAPHS", "100"))
# what Python says by itself; a sentence of ours is a ValueError or an error class of our own
BARE = ("TypeError", "AttributeError", "KeyError", "IndexError", "NameError", "RuntimeError",
        "AssertionError", "UnboundLocalError", "OverflowError", "ZeroDivisionError")  # fmt: skip


@pytest.fixture(scope="module")
def info(server):
    return server.object_info()


def answer(server, prompt, seconds=60.0):
    """Queue a workflow and wait for its end; a slow one is cancelled, which is no fault.

    Returns:
        What the server refused by node, or the error of its run, or None.
    """
    status, body = server.ask("/prompt", {"prompt": prompt, "prompt_id": str(uuid.uuid4())})
    if status != 200:
        assert status == 400, f"{status}: {body}"
        assert body["error"]["message"]
        return body["node_errors"], None
    try:
        entry = server.wait(body["prompt_id"], seconds)
    except pytest.fail.Exception:
        server.interrupt()
        entry = server.wait(body["prompt_id"], seconds)
    errors = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    return {}, errors[0] if errors else None


def complaint(refused, error):
    """Why an answer is no sentence of ours; empty where it is one, or the host's own."""
    for node in refused.values():
        for each in node["errors"] if node["class_type"].startswith("FlowSearch") else ():
            said = each["extra_info"].get("traceback", ())
            if any(f"custom_nodes/{PACK}/" in line for line in said):
                return f"validation of {node['class_type']}: {each['details']}"
    if not error or not error["node_type"].startswith("FlowSearch"):
        return ""
    kind = error["exception_type"].split(".")[-1]
    text = f"{error['node_type']}: {kind}: {error['exception_message']}"
    where = "".join(error["traceback"][-1:])
    if kind in BARE or len(error["exception_message"]) < 20 or f"/{PACK}/" not in where:
        return f"{text}\n{where}"
    return ""


def alive(server):
    """The server still makes a picture's worth of nodes."""
    prompt = {
        "1": {"class_type": "FlowSearchLoadDemo", "inputs": {}},
        "2": {"class_type": "FlowSearchShapeFidelity", "inputs": {}},
        "3": {"class_type": "EmptyImage",
              "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "4": {"class_type": "FlowSearchScoreImages",
              "inputs": {"images": ["3", 0], "reward": ["2", 0], "keep": 0, "threshold": "none",
                         "order": "best_first", "draw": False}},
    }  # fmt: skip
    return "shape_fidelity of 1 picture" in server.run(prompt)["4"]["text"][0]


class Typical(Graphs):
    """Workflows with nothing wrong."""

    def __init__(self, info, seed):
        super().__init__(info, seed, spoilt=0.0)

    def around(self, name):
        """A workflow that ends in a node of ours, and that node's place."""
        prompt = self.draw(name)
        (place,) = [p for p, n in prompt.items() if n["class_type"] == name][-1:]
        return prompt, place


def test_numbers_out_of_range_are_refused_on_every_node(server, info):
    """Typed in, by the host; by a wire, by us, with the range."""
    wrong, tried = [], 0
    for name in Typical(info, 0).ours:
        given = {}
        prompt, place = Typical(info, 3).around(name)
        inputs = prompt[place]["inputs"]
        chosen = {k: v for k, v in inputs.items() if isinstance(v, str)}
        for key, kind, options, _ in inputs_of(info[name], given, Typical(info, 3).rng):
            if kind not in ("INT", "FLOAT") or "max" not in options:
                continue
            if any(key.startswith(f"{k}.") and chosen.get(k) != v for k, v in given.items()):
                continue
            for value in (options["min"] - 1, options["max"] + 1):
                tried += 1
                typed = {**prompt, place: {**prompt[place], "inputs": {**inputs, key: value}}}
                refused, error = answer(server, typed)
                found = [e["type"] for n in refused.values() for e in n["errors"]]
                if not {"value_smaller_than_min", "value_bigger_than_max"} & {*found}:
                    wrong.append(f"{name}.{key} = {value}: {found or error}")
    assert tried > 60
    assert not wrong, "\n".join(wrong)


def test_a_number_by_a_wire_is_refused_with_its_range(server, info):
    prompt, place = Typical(info, 3).around("FlowSearchSigmas")
    prompt["wire"] = {"class_type": "PrimitiveInt", "inputs": {"value": 0}}
    prompt[place]["inputs"]["steps"] = ["wire", 0]
    _, error = answer(server, prompt)
    assert "'steps' is 0; give it a whole number from 1 to 10000" in error["exception_message"]


def test_a_list_with_inputs_that_is_left_out_or_unknown_is_named(server, info):
    for value in (None, "no such law"):
        inputs = {"law": value, "taper_start": 0.0, "taper_stop": 0.0}
        inputs = {key: one for key, one in inputs.items() if one is not None}
        prompt = {
            "1": {"class_type": "FlowSearchNoiseLaw", "inputs": inputs},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        }
        _, error = answer(server, prompt)
        assert "'law' is missing; choose one of " in error["exception_message"]


def test_what_a_chosen_option_leaves_out_has_its_default(server):
    """The host says None there: a palette of a picture without a count was a TypeError."""
    prompt = {
        "1": {"class_type": "EmptyImage",
              "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
        "2": {"class_type": "FlowSearchImageStatistic",
              "inputs": {"statistic": "palette", "statistic.colours": "#000000",
                         "statistic.reference": ["1", 0], "direction": "higher"}},
        "3": {"class_type": "FlowSearchScoreImages",
              "inputs": {"images": ["1", 0], "reward": ["2", 0], "keep": 0, "threshold": "none",
                         "order": "best_first", "draw": False}},
    }  # fmt: skip
    assert "1 kept" in server.run(prompt)["3"]["text"][0]


def test_every_socket_refuses_every_foreign_thing_or_takes_it(server, info):
    """One thing a socket here, all of them in the soak."""
    wrong, number = [], 0
    for name in Typical(info, 0).ours:
        prompt, place = Typical(info, 5).around(name)
        inputs = prompt[place]["inputs"]
        for key in [k for k, v in inputs.items() if isinstance(v, list)]:
            things = [*THINGS] if GRAPHS > 100 else [[*THINGS][number % len(THINGS)]]
            for thing in things:
                number += 1
                given = {**inputs, key: ["foreign", 0]}
                foreign = {"class_type": "ForeignThing", "inputs": {"thing": thing}}
                tried = {**prompt, "foreign": foreign, place: {**prompt[place], "inputs": given}}
                why = complaint(*answer(server, tried))
                wrong += [f"{thing} at {key}: {why}"] if why else []
    assert number > 40
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["FlowSearchVariation", "FlowSearchLikelihood"])
def test_a_clip_for_a_model_of_pictures_is_named(server, info, name):
    prompt, place = Typical(info, 5).around(name)
    inputs = {**prompt[place]["inputs"], "latent_image": ["foreign", 0]}
    foreign = {"class_type": "ForeignThing", "inputs": {"thing": "video_samples"}}
    tried = {**prompt, "foreign": foreign, place: {**prompt[place], "inputs": inputs}}
    _, error = answer(server, tried)
    assert (
        "(1, 3, 4, 16, 16) and the model fails on it: its latents are of pictures"
        in error["exception_message"]
    )


def test_workflows_drawn_wrong_get_a_sentence_and_the_server_lives(server, info):
    graphs, wrong, refused, failed = Graphs(info, 20261121), [], 0, 0
    for number in range(GRAPHS):
        validation, error = answer(server, graphs.draw())
        refused, failed = refused + bool(validation), failed + bool(error)
        why = complaint(validation, error)
        wrong += [f"workflow {number}: {why}"] if why else []
    assert min(refused, failed) > GRAPHS / 10, "the workflows are not wrong enough"
    assert not wrong, "\n".join(wrong)
    assert alive(server)
