"""The one door for words: what came from elsewhere reaches the page and the log as words."""

import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from comfy_api.latest import io

from flowsearch.nodes.host.page.remarks import says_why
from flowsearch.nodes.host.page.text import (
    MOST_LINE,
    MOST_LINES,
    cleaned,
    for_page,
    guard_log,
    json_for_page,
)
from flowsearch.nodes.input_checks import checked

DATA = Path(__file__).parents[2] / "data" / "hostile_words.json"
CASES = json.loads(DATA.read_text(encoding="utf-8"))["cases"]
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")


class Markup(HTMLParser):
    """What a page would make of a text, if it took it for markup."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.words = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_comment(self, data):
        self.tags.append("comment")

    def handle_data(self, data):
        self.words += data


@pytest.mark.parametrize("case", [*CASES, "&lt;img src=x&gt;", "[[label|http://x]]", "a<!--b-->"])
def test_hostile_words_are_words(case):
    page = Markup(for_page(f"reason: {case}"))
    assert page.tags == []
    assert "[[" not in page.words
    said = page.words.replace("\u200b", "")
    assert said == cleaned(f"reason: {case}"), "it reads the same"
    assert not UNSEEN.search(said)
    assert len(said) <= MOST_LINE
    said.encode("utf-8")


def test_ordinary_words_stay_as_they_are():
    text = "reward 0.9 (0.2) & more; a < b, 3<4\nArg\u00fcello \u4e09\u4e2a\u7ea2\u5706 [1, 2]"
    assert for_page(text) == cleaned(text) == text


def test_no_text_is_without_end():
    assert len(cleaned("a\n" * 10**6).split("\n")) == MOST_LINES + 1
    assert len(cleaned("word " * 10**6)) <= MOST_LINE
    assert cleaned("word " * 10**4 + "do this").endswith("do this")
    assert for_page(for_page("<b>" + "x" * 5000)) == for_page("<b>" + "x" * 5000)


def test_data_reads_back_as_it_was():
    text = json_for_page({"cases": CASES})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"cases": CASES}


class Stubborn(Exception):
    """An error that does not say what it was given, but its own words."""

    def __str__(self):
        return CASES[0]


@pytest.mark.parametrize("kind", [ValueError, Stubborn])
def test_errors_reach_the_page_as_words(kind):
    class Fails(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema("Fails", inputs=[])

        @classmethod
        def execute(cls):
            try:
                raise KeyError(CASES[1])
            except KeyError as cause:
                raise kind(f"the judge said {CASES[0]}") from cause

    with pytest.raises(Exception, match="img src=x") as caught:
        checked(Fails).execute()
    assert Markup(str(caught.value)).tags == []
    assert kind is Stubborn or Markup(str(caught.value.__cause__)).tags == []


def test_errors_of_a_search_in_another_packs_node_are_words():
    @says_why
    def fails():
        raise ValueError(f"the judge said {CASES[0]}")

    with pytest.raises(ValueError, match="img src=x") as caught:
        fails()
    assert Markup(str(caught.value)).tags == []


def test_the_log_is_one_door(caplog):
    guard_log()
    log = logging.getLogger("flowsearch")
    with caplog.at_level("WARNING", "flowsearch"):
        log.warning("reward %s gave %r", CASES[3], CASES[4])
        try:
            raise ValueError("\x1b[2J" + "y" * 9000)
        except ValueError:
            log.exception("it failed: %s", "\x07")
    assert not UNSEEN.search(caplog.text)
    assert "cleared" in caplog.text
    assert "Traceback" in caplog.text
    assert "y" * 400 not in caplog.text
