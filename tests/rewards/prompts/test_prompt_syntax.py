"""What stays of a prompt that was written for the sampler."""

import pytest

from flowsearch.rewards.prompts.prompt_syntax import words_of

CASES = {
    "three red circles and two blue squares": ("three red circles and two blue squares", []),
    "a (red:1.3) cat": ("a red cat", ["weights"]),
    "a ((red)) cat, (tall)": ("a red cat, tall", ["weights"]),
    "a ((red:1.2) and (blue:0.5):1.1) cat": ("a red and blue cat", ["weights"]),
    "a (red : 1.3) cat": ("a red cat", ["weights"]),
    "time (12:30) o'clock": ("time 12 o'clock", ["weights"]),
    "<lora:detail_v2:0.8> a cat": ("a cat", ["a LoRA or the like"]),
    "a [cat:dog:.5] runs": ("a dog runs", ["a change on the way"]),
    "a cat [with a hat:0.4]": ("a cat with a hat", ["a change on the way"]),
    "a cat [with a hat::0.4]": ("a cat with a hat", ["a change on the way"]),
    "a [cat|dog]": ("a cat dog", ["alternatives"]),
    "a {red|blue} cat": ("a red blue cat", ["alternatives"]),
    "a __colour__ cat, __art/my_style__": ("a cat,", ["a wildcard"]),
    "a cat, embedding:easynegative": ("a cat,", ["an embedding"]),
    "a cat BREAK a dog": ("a cat a dog", ["a break"]),
    "a smile \\(:3\\)": ("a smile (:3)", []),
    "a list [1] of {things}": ("a list [1] of {things}", []),
    "an open ( bracket": ("an open ( bracket", []),
    "wrong ) order (": ("wrong ) order (", []),
    "": ("", []),
}


@pytest.mark.parametrize("text", CASES)
def test_what_stays(text):
    assert words_of(text) == CASES[text]


@pytest.mark.parametrize("unit", ["(", ")", "(a:1)", "[a:b:", "{|", "<lora:", "__a", "\\", "((a))"])
def test_a_text_of_marks_is_read_and_none_is_deeper_than_a_person_writes(unit):
    words, _ = words_of(unit * (20_000 // len(unit)))
    assert len(words) <= 20_000
