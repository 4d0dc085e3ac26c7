"""Targets read from prompts: what a grammar writes is read back, what is in doubt is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsearch.rewards.counting import MOST, NUMBERS, Target, parse_targets
from flowsearch.rewards.inflection import is_plural, plural, singular, word_set

NOUNS = dict(
    pair.split("/")
    for pair in word_set(
        "apple/apples dog/dogs cat/cats person/people man/men woman/women child/children "
        "mouse/mice knife/knives wolf/wolves leaf/leaves sheep/sheep deer/deer box/boxes "
        "bus/buses glass/glasses dress/dresses bench/benches brush/brushes tomato/tomatoes "
        "potato/potatoes photo/photos piano/pianos kangaroo/kangaroos city/cities "
        "monkey/monkeys toy/toys house/houses horse/horses rose/roses vase/vases moose/moose "
        "goose/geese tooth/teeth foot/feet shoe/shoes cookie/cookies pie/pies tie/ties "
        "butterfly/butterflies roof/roofs giraffe/giraffes scarf/scarves shelf/shelves "
        "glove/gloves stove/stoves axe/axes fox/foxes cactus/cacti octopus/octopuses "
        "lens/lenses canvas/canvases human/humans snowman/snowmen fireman/firemen "
        "banana/bananas panda/pandas pizza/pizzas sofa/sofas taxi/taxis ski/skis menu/menus "
        "prize/prizes maze/mazes quiz/quizzes toothbrush/toothbrushes moustache/moustaches "
        "headache/headaches sandwich/sandwiches blouse/blouses virus/viruses iris/irises "
        "t-shirt/t-shirts teddy-bear/teddy-bears ring/rings king/kings building/buildings "
        "aircraft/aircraft scissors/scissors die/dice ox/oxen specimen/specimens kiwi/kiwis "
        "cow/cows bird/birds car/cars book/books cup/cups chair/chairs tree/trees star/stars"
    )
)
ADJECTIVES = ("red", "small", "old", "shiny", "wooden", "glass", "red-eyed", "gorgeous", "flying")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

nouns = st.lists(st.sampled_from(sorted(NOUNS)), min_size=1, max_size=4, unique=True)
counts = st.integers(0, 20)
adjectives = st.sampled_from(("", *ADJECTIVES))
separators = st.sampled_from((", ", " and ", ", and ", " & ", "; ", "\n", " plus ", ". "))
openings = st.sampled_from(
    (
        "",
        "a photo of ",
        "A painting of ",
        "photo of ",
        "a close-up photo of ",
        "the ",
        "a group of ",
    )
)
places = st.sampled_from(
    ("", " on a table", " in an old garden", ", highly detailed, 4k", " under the sky", ".")
)


def words(count):
    """A number as words."""
    if count <= 20:
        return NUMBERS[count]
    ten, one = divmod(count, 10)
    return TENS[ten - 2] + (f"-{NUMBERS[one]}" if one else "")


@st.composite
def lists(draw):
    """Targets and a prompt that asks for them."""
    targets, pieces = [], []
    for i, noun in enumerate(draw(nouns)):
        count, adjective = draw(counts), draw(adjectives)
        before = f"{adjective} " if adjective else ""
        targets.append(Target(count, before + noun, before + NOUNS[noun]))
        written = [str(count), words(count)]
        with_article = {1: ["a"], 12: ["a dozen"]}.get(count, []) if i else []  # not after "the"
        written += with_article + ["no"] * (count == 0)
        name = before + (noun if count == 1 else NOUNS[noun])
        pieces.append((draw(separators) if i else "") + f"{draw(st.sampled_from(written))} {name}")
    return targets, draw(openings) + "".join(pieces) + draw(places)


@settings(deadline=None)
@given(lists())
def test_what_the_grammar_writes_is_read_back(written):
    targets, text = written
    assert list(parse_targets(text)) == targets
    assert list(parse_targets(text.upper())) == targets


@settings(deadline=None)
@given(
    nouns, st.data(), st.sampled_from(("\n", ", ", ";", "\n\n")), st.sampled_from((": ", "=", " :"))
)
def test_a_table_is_read_row_by_row(things, data, separator, colon):
    targets = [Target(data.draw(st.integers(0, MOST)), noun, NOUNS[noun]) for noun in things]
    rows = [
        data.draw(st.sampled_from((t.name, t.plural)))
        + colon
        + data.draw(st.sampled_from((str(t.count), *([words(t.count)] if t.count < 100 else []))))
        for t in targets
    ]
    assert list(parse_targets(separator.join(rows))) == targets


@pytest.mark.parametrize("count", range(100))
def test_every_number_below_a_hundred_is_read_in_words_and_digits(count):
    name = "apple" if count == 1 else "apples"
    for written in (str(count), words(count), words(count).replace("-", " ")):
        assert parse_targets(f"{written} {name}") == (Target(count, "apple", "apples"),)


@pytest.mark.parametrize("noun", sorted(NOUNS))
def test_nouns_are_inflected_there_and_back(noun):
    assert plural(noun) == NOUNS[noun]
    assert singular(NOUNS[noun]) == singular(noun) == noun
    assert is_plural(NOUNS[noun])
    assert is_plural(noun) == (NOUNS[noun] == noun)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("three apples, two dogs and a cat", ["3 apple", "2 dog", "1 cat"]),
        ("a photo of three red apples and two dogs on a table", ["3 red apple", "2 dog"]),
        ("a pair of shoes", ["2 shoe"]),
        ("two dozen eggs", ["24 egg"]),
        ("no dog and a couple of people", ["0 dog", "2 person"]),
        ("two cups of coffee and one glass of water", ["2 cup of coffee", "1 glass of water"]),
        ("two dogs running and jumping", ["2 dog"]),
        ("a cat sitting on a sofa", ["1 cat"]),
        ("a group of three dogs in front of a house", ["3 dog"]),
        ("a photo with three sheep", ["3 sheep"]),
        ("three sports cars, f/1.8, 4k", ["3 sports car"]),
        ("three dogs on a table and two chairs", ["3 dog", "2 chair"]),
        ("cups of tea: 4", ["4 cup of tea"]),
        ("A painting", ["1 painting"]),
    ],
)
def test_forms_beyond_the_grammar(text, expected):
    assert [f"{t.count} {t.name}" for t in parse_targets(text)] == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no number"),
        ("dogs on a table", "no number"),
        ("three apples and dogs", "'dogs' after 'and' has no count"),
        ("two dogs with a ball", "'with a ball'"),
        ("three dogs on a table and a chair", "'and a chair'"),
        ("two dogs chase cats", "'two dogs chase cats'"),
        ("three black and white dogs", "'three black'"),
        ("several dogs", "'several' is no number"),
        ("two hundred dogs", "no one number"),
        ("a bowl of three apples", "no one number"),
        ("a pair of scissors", "no one number"),
        ("three of the dogs", "no one number"),
        ("3 apple", "'3 apple'"),
        ("one dogs", "'one dogs'"),
        ("1.5 apples", "'1.5' is no count"),
        ("-3 apples", "'-3' is no count"),
        ("1000 apples", "'1000' is no count"),
        ("2girls", "'2girls' is no count"),
        ("three, two", "'three'"),
        ("a 3 year old girl", "'a'"),
        ("two dogs and two dogs", "'dog' is counted twice"),
        ("dog: 2\ndogs: 3", "'dog' is counted twice"),
        ("apple: 3\ntwo dogs", "'two dogs' is no row"),
        ("apple: 3\ndog: 1000", "'dog: 1000' is no row"),
    ],
)
def test_what_is_in_doubt_is_refused_with_the_table(text, why):
    with pytest.raises(ValueError, match=f"(?s){why}.*red apple: 3"):
        parse_targets(text)


@pytest.mark.parametrize("count", ["-1", "-1-2", "--3", "+2"])
def test_a_sign_is_not_dropped(count):
    with pytest.raises(ValueError, match=r"is no count|no number of"):
        parse_targets(f"cat: {count}")
    with pytest.raises(ValueError, match="no row"):
        parse_targets(f"dog: 1\ncat: {count}")
    assert parse_targets("cat: twenty-one")[0].count == 21


@settings(deadline=None)
@given(st.text(alphabet="abno 123,.:and\nthreedogsa-", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        targets = parse_targets(text)
    except ValueError:
        return
    assert targets
    assert all(0 <= t.count <= MOST and t.name and t.plural for t in targets)
