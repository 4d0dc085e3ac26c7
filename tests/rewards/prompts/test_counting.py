"""Targets read from prompts: what a grammar writes is read back, what is in doubt is refused."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsearch.rewards.prompts.counting import MOST, NUMBERS, Target, parse_targets
from flowsearch.rewards.prompts.inflection import is_plural, plural, singular, word_set

NOUNS = dict(
    pair.split("/")
    for pair in word_set(
        "apple/apples dog/dogs cat/cats person/people man/men woman/women child/children "
        "mouse/mice knife/knives wolf/wolves leaf/leaves sheep/sheep deer/deer box/boxes "
        "bus/buses glass/glasses dress/dresses bench/benches brush/brushes tomato/tomatoes "
        "potato/potatoes photo/photos piano/pianos kangaroo/kangaroos city/cities "
        "monkey/monkeys toy/toys house/houses horse/horses rose/roses vase/vases moose/moose "
        "goose/geese tooth/teeth shoe/shoes cookie/cookies pie/pies tie/ties "
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
        ("two red circles, no blue squares", ["2 red circle", "0 blue square"]),
        ("two cats but no dog", ["2 cat", "0 dog"]),
        ("two cats and no dogs", ["2 cat", "0 dog"]),
        ("two cats without dogs", ["2 cat", "0 dog"]),
        ("two cats without any dogs", ["2 cat", "0 dog"]),
        ("a photo without people", ["0 person"]),
        ("a cat without a tail and two dogs", ["1 cat", "0 tail", "2 dog"]),
        ("Without text, three apples", ["0 text", "3 apple"]),
        ("a street without cars or people", ["1 street", "0 car", "0 person"]),
        ("no dogs, or cats, two cows", ["0 dog", "2 cow"]),
        ("no dogs nor cats", ["0 dog", "0 cat"]),
        ("two cats without looking up", ["2 cat"]),
        ("a beach without flying birds", ["1 beach", "0 flying bird"]),
        ("'two' \"dogs\", (three) [cats!", ["2 dog", "3 cat"]),
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
        ("two cats without two dogs", "'without two' asks for none"),
        ("of a dog", "no number"),
        ("two cats without", "'without' asks for none"),
        ("two dogs without dogs", "'dog' is counted twice"),
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


PIECES = ("of", "a", "without", "or", "no", "two", "dogs", "cat", "photo", "and", ",", "in", "3")


@settings(deadline=None)
@given(
    st.text(alphabet="abno 123,.:and\nthreedogsa-", max_size=60)
    | st.lists(st.sampled_from(PIECES)).map(" ".join)
)
def test_any_text_is_read_or_refused(text):
    try:
        targets = parse_targets(text)
    except ValueError:
        return
    assert targets
    assert all(0 <= t.count <= MOST and t.name and t.plural for t in targets)


HOSTILE = {
    "spaces before a word": ("cat: 1\na", " ", "b"),
    "spaces": ("", " ", "a"),
    "quotes in a word": ("a cat x", "'", "x"),
    "quotes": ("", "'", ""),
    "brackets and quotes": ("a cat x", "')", "x"),
    "brackets": ("two cats ", "(", " x"),
    "full stops": ("a cat x", ".", "x"),
    "commas": ("", ",", ""),
    "semicolons": ("two cats", "; ", ""),
    "digits": ("", "1", " cats"),
    "numbers": ("", "1 ", "cats"),
    "signs": ("two cats ", "-", "1"),
    "hyphens": ("two ", "ty-", "cats"),
    "rows of one thing": ("", "a: 1\n", ""),
    "rows with a colon": ("cat: 1\n", ":", ""),
    "doing": ("a king", " running", ""),
    "of": ("two cups", " of", ""),
    "without": ("", "without ", "cats"),
    "no or": ("no cats", " or cats", ""),
    "many things": None,
}


def hostile(kind, size):
    """A text of about that many characters."""
    if HOSTILE[kind] is None:
        return "\n".join(f"thing{i:06d}: 1" for i in range(size // 15))
    before, unit, after = HOSTILE[kind]
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def time_of(text):
    """Seconds of this thread that reading takes, at least a millisecond."""
    start = time.thread_time()
    with contextlib.suppress(ValueError):
        parse_targets(text)
    return max(time.thread_time() - start, 1e-3)


@pytest.mark.parametrize("kind", HOSTILE)
def test_time_grows_with_the_length_of_a_text_and_not_with_its_square(kind):
    for power in (15, 16):
        text, half = hostile(kind, 2**power), hostile(kind, 2 ** (power - 1))
        least = [float("inf"), float("inf")]
        for _ in range(4):  # again where other work was in the way; what is quadratic stays 4
            least = [min(least[0], time_of(half)), min(least[1], time_of(text))]
            if least[1] <= 3 * least[0]:
                break
        assert least[1] <= 3 * least[0]


def test_a_text_longer_than_any_list_is_refused_and_messages_stay_short():
    with pytest.raises(
        ValueError, match=r"has 65,537 characters, and at most 65,536 are read\. Name"
    ):
        parse_targets("a" * 65_537)
    for kind in HOSTILE:
        try:
            parse_targets(hostile(kind, 2**16))
        except ValueError as error:
            assert len(str(error)) < 1200  # noqa: PT017 the other end is lawful
