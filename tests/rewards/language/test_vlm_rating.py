"""VLM Rating: an expectation over score tokens, read as the model itself would have gone on."""

from typing import ClassVar

import pytest
import torch
from tiny_language import language_model

from flowsearch.rewards.base import assess
from flowsearch.rewards.language.answers import Vocabulary
from flowsearch.rewards.language.vlm_rating import UNIFIED_REWARD, Form, VLMRating

WORDS = {str(i): i for i in range(10)} | {".": 10, "end": 11, " 4": 12, "Style": 13, "45": 14}


class Table:
    """A model that says 4 at .6 (in two ways), 2 at .2 and words otherwise; behind 4 a point at .5,
    then .25 or .75."""

    vocabulary = Vocabulary(WORDS)
    after: ClassVar = {
        (): {4: 0.4, 12: 0.2, 2: 0.2, 14: 0.1, 11: 0.1},
        (4,): {10: 0.5, 11: 0.5},
        (4, 10): {2: 0.5, 7: 0.5},
        (13,): {1: 1.0},
        (4, 10, 2, 13): {3: 1.0},
    }

    def __init__(self):
        self.asked = []

    def tokens(self, text):
        return {"": (), "\nStyle": (13,), "Style": (13,)}[text]

    def next_token(self, images, asks):
        self.asked += [ask.said for ask in asks]
        assert len({len(ask.said) for ask in asks}) == 1
        p = torch.zeros(len(asks), 15, dtype=torch.float64)
        for row, ask in zip(p, asks, strict=True):
            for token, value in self.after.get(ask.said, {11: 1.0}).items():
                row[token] = value
        return p.log()


def pictures(count=1):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 56, 56, 3, generator=generator)


def test_the_value_is_the_expectation_with_its_tenths():
    """(4 * .6 + 2 * .2) / .8, and half of the mean of .2 and .7."""
    found = assess(VLMRating(Table(), Form(question="?")), pictures())
    assert float(found.values) == pytest.approx(2.8 / 0.8 + 0.5 * 0.45)
    assert found.parts == [{"rating": pytest.approx(3.725)}]
    assert found.notes == ["rating 3.725"]


def test_a_second_score_is_read_behind_the_most_probable_first():
    model = Table()
    form = Form(question="?", answer="{score}\nStyle{score}")
    found = assess(VLMRating(model, form, weights=(1.0, 3.0)), pictures())
    assert found.parts == [{"rating": pytest.approx(3.725), "Style": pytest.approx(3.0)}]
    assert float(found.values) == pytest.approx((3.725 + 3 * 3.0) / 4)
    assert (4, 10, 2, 13) in model.asked


def test_a_point_that_the_model_hardly_writes_costs_no_call():
    model = Table()
    found = assess(VLMRating(model, Form(question="?", answer="Style{score}")), pictures(2))
    assert found.values.tolist() == [1.0, 1.0]
    assert model.asked == [(13,), (13,), (13, 1), (13, 1)]


def test_an_answer_of_words_is_noted():
    form = Form(question="?", answer="Style{score}", lowest=2, highest=3)
    model = Table()
    model.after = {(13,): {11: 0.9, 2: 0.05, 3: 0.05}}
    found = assess(VLMRating(model, form), pictures())
    assert float(found.values) == pytest.approx(2.5)
    assert "only 10% of the answer is a score" in found.notes[0]


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (Form(question="  "), "empty question"),
        (Form(), "the prompt is empty"),
        (Form(question="?", answer="good"), r"holds no \{score\}"),
        (Form(question="{promt}?"), r"\{promt\} stands for nothing"),
        (Form(question="?", answer="{score} " * 17), "holds 17 scores, and at most 16"),
        (Form(question="?", lowest=5, highest=5), "the scale is 5 to 5"),
        (Form(question="?", highest=10), "one digit"),
    ],
)
def test_what_cannot_be_asked_is_refused(form, why):
    with pytest.raises(ValueError, match=why):
        VLMRating(Table(), form)


def test_weights_are_one_a_score():
    with pytest.raises(ValueError, match="2 weights for 1 scores"):
        VLMRating(Table(), Form(question="?"), weights=(1.0, 2.0))


def test_a_vocabulary_without_digits_is_refused():
    with pytest.raises(ValueError, match="no token of this model reads '3'"):
        Vocabulary({"a": 0}).digit(3)


@pytest.mark.parametrize("name", ["qwen", "llava", "idefics"])
def test_a_real_network_s_answer_is_read_as_it_would_go_on(name):
    """Every call's beginning is the question's, then the form's words and the model's own digits;
    the scores are those of one picture alone."""
    model = language_model(name)
    reward = VLMRating(model, UNIFIED_REWARD, "a cat")
    images = pictures(3)
    found = assess(reward, images)
    assert list(found.parts[0]) == [
        f"{axis} Score (1-5)" for axis in ("Alignment", "Coherence", "Style")
    ]
    assert torch.allclose(found.values, torch.cat([reward.score(i[None]) for i in images]))
    assert float(found.values.std()) > 1e-4
    text = model.processor.tokenizer.decode(model.tokens("Alignment Score (1-5): "))
    assert text == "Alignment Score (1-5): "


def test_the_form_of_unified_reward_is_the_published_one():
    """Three axes in their order, the caption in brackets at the end."""
    assert UNIFIED_REWARD.question.endswith("Text Caption: [{prompt}]")
    assert UNIFIED_REWARD.answer.splitlines() == [
        "Alignment Score (1-5): {score}",
        "Coherence Score (1-5): {score}",
        "Style Score (1-5): {score}",
    ]
    for line, letter in zip(UNIFIED_REWARD.answer.splitlines(), "XYZ", strict=True):
        assert line.replace("{score}", letter) in UNIFIED_REWARD.question
