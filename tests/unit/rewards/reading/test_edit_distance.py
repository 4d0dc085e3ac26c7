"""The nearest place in a text, against brute force with the definition of the distance."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsearch.rewards.reading import edit_distance
from flowsearch.rewards.reading.edit_distance import Found, match, nearest

words = st.text("abc ", max_size=8)
some = st.text("abc ", min_size=1, max_size=6)


@cache
def by_definition(a, b):
    """Levenshtein's distance."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        by_definition(a[1:], b) + 1,
        by_definition(a, b[1:]) + 1,
        by_definition(a[1:], b[1:]) + (a[0] != b[0]),
    )


def substrings(text):
    return {text[i:j] for i in range(len(text) + 1) for j in range(i, len(text) + 1)}


@settings(deadline=None)
@given(some, words)
def test_the_nearest_substring_is_the_best_of_all_and_lies_where_it_says(wanted, text):
    found = nearest(wanted, text)
    assert found.distance == min(by_definition(wanted, part) for part in substrings(text))
    assert by_definition(wanted, text[found.start : found.end]) == found.distance


@settings(deadline=None)
@given(some, words)
def test_one_line_is_matched_exactly_and_what_is_left_is_counted(wanted, text):
    found = nearest(wanted, text)
    taken = found.end - found.start if found.distance < len(wanted) else 0
    assert match([wanted], text) == ([found.distance], len(text) - taken)


@settings(deadline=None)
@given(st.permutations(["sale", "fifty", "open daily"]))
def test_lines_are_found_in_any_order(lines):
    assert match(["sale", "fifty", "open daily"], "".join(lines)) == ([0, 0, 0], 0)


def test_a_place_serves_one_line_only():
    assert match(["no", "no"], "no") == ([0, 2], 0)
    assert match(["no", "no"], "no no") == ([0, 0], 1)
    # the nearer line takes the place, in whatever order they are written
    assert match(["hello", "yellow"], "hello") == ([0, 6], 0)
    assert match(["yellow", "hello"], "hello") == ([6, 0], 0)


def test_a_cancel_passes_between_two_tables():
    calls = []

    def checkpoint():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        match(["aa", "bb", "cc"], "xaaxbbxcc", checkpoint)


def test_tables_that_are_known_are_not_made_again(monkeypatch):
    """One for each string and part: the parts that a taken place leaves, and no others."""
    made = []
    monkeypatch.setattr(
        edit_distance, "nearest", lambda *pair: (made.append(pair), nearest(*pair))[1]
    )
    wanted = [f"{i:03d}" for i in range(20)]
    assert match(wanted, " ".join(wanted)) == ([0] * 20, 19)
    assert len(made) == len(set(made)) <= 20 + 20 * 20


def test_lone_surrogates_are_characters():
    assert nearest("\ud800b", "a\ud800bc") == Found(0, 1, 3)
