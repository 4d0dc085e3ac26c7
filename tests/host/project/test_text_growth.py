"""No text of a workflow keeps the server: reading it takes a time that grows as its length does.

Every text input of every node is given texts of doubling length that once took four times as long
for twice the length. Compared are times of the processor, the least of several, in ratio; what is
refused in a sentence is fine.
"""

import asyncio
import json
import time

import encoders
import pytest
import torch
from comfy_api.latest import io
from tiny_language import language_model

from flowsearch.nodes.extension import Extension
from flowsearch.nodes.host.rewards.judges import file as judges_file
from flowsearch.nodes.input_checks import LONGEST_TEXT, complaints
from flowsearch.rewards.pixels.image_statistic import ImageStatistic

GROWTH = 3.0
FLOOR = 0.05
"""Seconds below which nothing is compared."""

SIZES = tuple(1024 * n for n in (4, 8, 16, 32, 64))
UNITS = (
    *(" ", "\t", "\n", "a", "'", '"', "')", "(", "[", "{", ":", "{prompt}", "0", "9 ", "1, ", "-"),
    *(",", ";", ".", "a, ", "a: 1\n", "a\n", "#fff ", "and ", "no ", "red circle, ", "two cats, "),
    "{score}",
)


def texts(size):
    """Of one length."""
    for unit in UNITS:
        yield (unit * size)[:size]
    for before, after in (("cat: 1\na", "b"), ("a cat x", "x"), ("1", "x")):
        for unit in (" ", "'", "')", ".", ",", "-"):
            middle = size - len(before) - len(after)
            yield before + (unit * middle)[:middle] + after


@pytest.fixture(scope="module")
def nodes():
    classes = asyncio.run(Extension().get_node_list())
    return {cls.define_schema().node_id: cls for cls in classes}


def strings(inputs, prefix=""):
    """Paths of all text inputs, inside options too."""
    for each in inputs:
        if isinstance(each, io.String.Input):
            yield prefix + each.id
        for option in getattr(each, "options", None) or ():
            if isinstance(option, io.DynamicCombo.Option):
                yield from strings(option.inputs, f"{prefix}{each.id}={option.key}.")


PICTURE = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))


def scored(output):
    return output.result[0].score(PICTURE)


def made(output):
    return output.result[0]


def sharpness():
    return {"reward0": ImageStatistic("sharpness", "higher", 0.0, ())}


def weighted(text):
    return {"rule": "weighted_sum", "weights": text, "normalisation": "none"}


def palette(text):
    return {"statistic": "palette", "colours": text}


def vision():
    return {"encoder": encoders.encoder("clip")}


def talking():
    return {"model": language_model("qwen")}


def own_form(**text):
    form = {"form": "question", "question": "{prompt}?", "answer": "{score}"}
    return {**form, "lowest": 1, "highest": 5, **text}


# (node, input) -> what else it is given, with the text's place; what is done with what comes out
TABLE = {
    ("FlowSearchCombineRewards", "rule=weighted_sum.weights"): (
        lambda text: {"rewards": sharpness(), "rule": weighted(text)}, scored
    ),
    ("FlowSearchImageStatistic", "statistic=palette.colours"): (
        lambda text: {"statistic": palette(text), "direction": {"direction": "higher"}}, scored
    ),
    ("FlowSearchLayoutReward", "layout=boxes.boxes"): (
        lambda text: {"layout": {"layout": "boxes", "boxes": text}}, scored
    ),
    ("FlowSearchClipScore", "prompt"): (lambda text: {**vision(), "prompt": text}, scored),
    ("FlowSearchShapeCount", "prompt"): (lambda text: {"prompt": text}, scored),
    ("FlowSearchShapeCount", "targets"): (lambda text: {"prompt": "", "targets": text}, scored),
    ("FlowSearchTextInImage", "text"): (lambda text: {"text": text}, made),
    # attention over a question is not linear, so these are not asked
    ("FlowSearchVQAScore", "prompt"): (
        lambda text: {**talking(), "prompt": text, "questions": "Is it {prompt}?"}, made
    ),
    ("FlowSearchVQAScore", "questions"): (
        lambda text: {**talking(), "prompt": "a cat", "questions": text}, made
    ),
    ("FlowSearchVQAScore", "weights"): (
        lambda text: {**talking(), "prompt": "a", "questions": "Is it?", "weights": text}, made
    ),
    ("FlowSearchVLMCount", "prompt"): (lambda text: {**talking(), "prompt": text}, made),
    ("FlowSearchVLMCount", "targets"): (
        lambda text: {**talking(), "prompt": "", "targets": text}, made
    ),
    ("FlowSearchVLMCount", "question"): (
        lambda text: {**talking(), "prompt": "two cats", "question": text}, made
    ),
    ("FlowSearchVLMRating", "prompt"): (
        lambda text: {**talking(), "prompt": text, "form": own_form()}, made
    ),
    ("FlowSearchVLMRating", "weights"): (
        lambda text: {**talking(), "prompt": "a", "form": own_form(), "weights": text}, made
    ),
    ("FlowSearchVLMRating", "form=question.question"): (
        lambda text: {**talking(), "prompt": "a", "form": own_form(question=text)}, made
    ),
    ("FlowSearchVLMRating", "form=question.answer"): (
        lambda text: {**talking(), "prompt": "a", "form": own_form(answer=text)}, made
    ),
    ("FlowSearchJudge", "prompt"): (lambda text: {"judge": "mine", "prompt": text}, made),
    ("FlowSearchJudge", "instruction"): (
        lambda text: {"judge": "mine", "prompt": "", "instruction": text}, made
    ),
}  # fmt: skip

FILES = {
    ("FlowSearchPreference", "prompt"),
    ("FlowSearchClapScore", "prompt"),
    ("FlowSearchDetectorCount", "targets"),
}
"""Inputs beside a file that is not here: what reads them stands in the table for another node, or
is a tokenizer of transformers; their length is bounded all the same."""


@pytest.fixture(scope="module", autouse=True)
def judge():
    file = judges_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"mine": {"url": "http://127.0.0.1:9/v1", "model": "m"}}))
    yield
    file.unlink()


def seconds(call, text):
    """The least time of the processor of a few tries, refusals included."""
    best = float("inf")
    for _ in range(3):
        begun = time.thread_time()
        said = refusal(call, text)
        best = min(best, time.thread_time() - begun)
        assert len(said) < 5000, "a refusal that quotes the whole text"
        if best < FLOOR:
            break
    return max(FLOOR, best)


def refusal(call, text):
    """What a call says of a text that it refuses."""
    try:
        call(text)
    except ValueError as refused:
        return str(refused)
    return ""


def slow(call):
    """Where twice the length takes more than GROWTH times as long: (text, size, times)."""
    for series in zip(*map(texts, SIZES), strict=True):
        times = []
        for text in series:
            times.append(seconds(call, text))
            if len(times) > 1 and times[-1] > GROWTH * times[-2]:
                yield text[:20], len(text), times
                break


def test_every_text_input_is_in_the_table(nodes):
    found = {
        (name, path) for name, cls in nodes.items() for path in strings(cls.define_schema().inputs)
    }
    assert found == {*TABLE, *FILES}


@pytest.mark.parametrize("key", TABLE, ids=" ".join)
def test_time_grows_no_faster_than_the_text(nodes, key):
    given, use = TABLE[key]
    cls = nodes[key[0]]
    assert [*slow(lambda text: use(cls.execute(**given(text))))] == []


def test_longer_texts_are_refused_by_every_node_in_a_sentence(nodes):
    text = "a" * (LONGEST_TEXT + 1)
    said = "16,385 characters; give it a text of at most"
    for (name, _), (given, _) in TABLE.items():
        with pytest.raises(ValueError, match=said):
            nodes[name].execute(**given(text))
    for name, path in FILES:
        inputs = nodes[name].define_schema().inputs
        assert any(said in sentence for sentence in complaints(inputs, {path: text}))


def test_the_measure_sees_what_is_quadratic():
    def quadratic(text):
        return sum(1 for i in range(len(text) // 16) for _ in text[i:])

    found = next(slow(quadratic))
    assert found[1] > SIZES[0]
