"""What a person sees of the example workflows before a run: name, thumbnail, note, one prompt."""

from collections import Counter

import pytest
from examples import EXAMPLES, FOLDER, named_weights, read
from PIL import Image

WORDS = ("prompt", "text")  # inputs that a model's and a reward's words come from
LEAST = 10  # letters of what counts as words


def of_each(test):
    return pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)(test)


@of_each
def test_the_thumbnail_is_square(file):
    with Image.open(file.with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert picture.width == picture.height >= 400


@of_each
def test_a_note_says_what_to_look_at_and_what_to_change(file):
    (note,) = (node for node in read(file)["nodes"] if node["type"] == "MarkdownNote")
    (text,) = note["widgets_values"]
    assert text.startswith("# ")
    assert "**Look at** " in text
    assert "**Change** " in text
    assert ("**Needs** " in text) == ("(needs " in file.stem)


@of_each
def test_a_name_says_what_must_be_there_first(file):
    needs = bool(named_weights(read(FOLDER / "api" / file.name)))
    assert file.stem.endswith((" (needs weights)", " (needs a server)")) == needs


@of_each
def test_no_words_stand_in_two_places(file):
    """A person who changes them in one would get a model and a reward that disagree."""
    nodes = read(FOLDER / "api" / file.name).values()
    given = (node["inputs"].get(name) for node in nodes for name in WORDS)
    words = Counter(text for text in given if isinstance(text, str) and len(text) > LEAST)
    assert [text for text, places in words.items() if places > 1] == []


def test_names_can_be_files_everywhere():
    for file in EXAMPLES:
        assert not set(file.stem) & set('<>:"/\\|?*#%')
        assert file.stem == file.stem.strip(" .")
        assert len(file.stem) <= 60
