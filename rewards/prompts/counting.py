"""Which things, and how many of each, does a prompt ask for?

Two forms are read. A table, one target a line (or parted by commas), which is never guessed at:

    red apple: 3
    dog: 2

And prose, "a photo of three red apples, two dogs and a cat on a table", by these rules:

* A count is a number from 0 to 999 in digits, a word from zero to ninety-nine, "a dozen" and
  "two dozen", "a pair of", "a couple of", "no", or "a" and "an" where a list goes on: at the
  beginning, after a comma, a full stop or in a new line, after "and", and after an opening such
  as "a photo of".
* What follows it, up to a comma, "and", the next count, or a word such as "on", "in", "with",
  "the", "that", "is", is the thing. With any count but one it ends at its plural ("two dogs
  running" is two dogs), and has to have one.
* "a" and "an" after a word of place name where things are, and are not counted ("on a table").
* "without" asks for none of what follows it ("without dogs", "without any dogs"), as "no" does,
  and "or" after either goes on with none ("no dogs or cats").
* Words that no count stands before are not counted ("highly detailed").

What can be read in two ways is refused: "three apples and dogs", "two dogs with a ball", "two
dogs chase cats", "several dogs", a thing that is named twice. Only English is read. Reading takes a
time that grows with the length of a text, not with its square.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .inflection import is_plural, plural, singular, word_set
from .long_text import check_length, shown

__all__ = ["MOST", "NUMBERS", "Target", "parse_targets"]

NUMBERS: tuple[str, ...] = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen", "twenty",
)  # fmt: skip
"""Number words from 0 to 20."""

MOST = 999
"""Largest count that is read."""

_TENS = {
    word: 10 * i
    for i, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), start=2
    )
}
_VALUES = {**{word: i for i, word in enumerate(NUMBERS)}, **_TENS, "no": 0, "a": 1, "an": 1}
_ARTICLES = ("a", "an")
_MEASURES = {"dozen": 12, "pair": 2, "couple": 2}
_VAGUE = word_set(
    "several many some few multiple various numerous countless lots dozens hundred thousand"
)
_AND = frozenset(("and", "&", "plus"))
_WITH = word_set("with having has have showing")
_PLACE = word_set(
    "on in at under over above below beneath behind beside besides between near against inside "
    "outside onto into upon around across along through next front top left right by from before "
    "after during for like as to without against towards amid among off of"
)
_OTHER = word_set(
    "the this that these those its his her their my our your is are was were be which who while "
    "where when but or nor"
)
_OPENINGS = word_set(
    "photo photograph picture image painting drawing illustration render rendering sketch shot "
    "closeup close-up scene view portrait watercolor watercolour print poster snapshot depiction "
    "group set collection row line pile bunch total"
)
"""Nouns after which "of" begins a list; groups whose number follows are among them."""

_ING = word_set(
    "king ring wing string building painting earring swing drawing ceiling duckling thing spring "
    "pudding dumpling sling viking sibling stocking railing awning lightning"
)
_PAIRS = word_set(
    "scissors glasses sunglasses trousers jeans pants shorts tights binoculars tweezers pliers "
    "goggles headphones leggings pyjamas pajamas"
)
_DETERMINERS = word_set("any a an the this that these those its his her their my our your")
_STOPS = frozenset({","} | _AND | _WITH | _OTHER | (_PLACE - {"of"}))
"""Words before which a thing ends."""

_NO_THING = word_set("year day hour inch meter metre foot minute month week mile")

_TABLE = (
    "Write the targets as a table instead, one a line, the thing for one and its count, for "
    "example 'red apple: 3'."
)


@dataclass(frozen=True)
class Target:
    """A thing to be counted.

    Attributes:
        count: How many there should be, 0 to 999.
        name: What it is, for one, lower case: "red apple".
        plural: For several: "red apples".
    """

    count: int
    name: str
    plural: str


def parse_targets(text: str) -> tuple[Target, ...]:
    """Read the targets of a table, or of a prompt.

    Args:
        text: See the module.

    Returns:
        At least one target, in order; each name once.

    Raises:
        ValueError: Nothing is counted, it cannot be read in one way, or the text is longer than
            any list of things; the message says what and how to write it.
    """
    check_length(text, "what to count", "Name the things to be counted and leave the rest out.")
    rows = _table(text)
    targets = rows if rows else _prose(text)
    if not targets:
        raise ValueError(f"'{shown(text)}' asks for no number of anything. {_TABLE}")
    seen: set[str] = set()
    for target in targets:
        if target.name in seen:
            raise ValueError(
                f"'{shown(target.name)}' is counted twice in '{shown(text)}'. Name each thing "
                f"once, with the whole number, or tell them apart by another word. {_TABLE}"
            )
        seen.add(target.name)
    return targets


def _table(text: str) -> tuple[Target, ...]:
    """Targets of a table; none where no line is a row of one."""
    pieces = [piece.strip() for piece in re.split(r"[\n,;]", text.lower()) if piece.strip()]
    rows = [_row(piece) for piece in pieces]
    numbers = [_number(re.sub(r"\b-", " ", row[1]).split()) if row else None for row in rows]
    if all(number is None for number in numbers):
        return ()
    targets: list[Target] = []
    for piece, row, number in zip(pieces, rows, numbers, strict=True):
        if row is None or number is None:
            raise ValueError(
                f"'{shown(piece)}' is no row of a table of targets, as others are. Write every "
                "target as its name for one, a colon, and a whole number from 0 to 999, one a "
                "line: 'red apple: 3'."
            )
        targets.append(_target(number, row[0].split()))
    return tuple(targets)


def _row(piece: str) -> tuple[str, str] | None:
    """What stands before the first colon or "=" and after it, one word or two; else None."""
    mark = re.search("[:=]", piece)
    if mark is None:
        return None
    name, count = piece[: mark.start()].rstrip(), piece[mark.end() :].lstrip()
    return (name, count) if name and re.fullmatch(r"\S+(?: \w+)?", count) else None


def _number(words: Sequence[str]) -> int | None:
    """The number that words are, or None."""
    if len(words) == 1 and re.fullmatch(r"[0-9]{1,3}", words[0]):
        return int(words[0])
    if len(words) == 1 and words[0] not in _ARTICLES:
        return _VALUES.get(words[0])
    if len(words) == 2 and words[0] in _TENS and 0 < _VALUES.get(words[1], 0) < 10:
        return _TENS[words[0]] + _VALUES[words[1]] if words[1] not in _ARTICLES else None
    return None


def _target(count: int, words: Sequence[str]) -> Target:
    """A target from the words of its name, for one or for several; the head stands before "of"."""
    at = words.index("of") if "of" in words[1:] else len(words)
    head = singular(words[at - 1])
    before, after = words[: at - 1], words[at:]
    return Target(
        count, " ".join([*before, head, *after]), " ".join([*before, plural(head), *after])
    )


@dataclass
class _Reader:
    """Reads prose from left to right.

    Attributes:
        text: All of it, for messages.
        words: Words and commas.
        at: The next word.
        targets: What was read.
        place: Whether a word of place stands between the last target and here.
        end: Where the last target ended.
    """

    text: str
    words: list[str]
    at: int
    targets: list[Target]
    place: bool = False
    end: int = -1

    def refuse(self, why: str) -> ValueError:
        """An error about the text."""
        return ValueError(f"In '{shown(self.text)}' {why}. {_TABLE}")

    @property
    def none(self) -> bool:
        """Whether there should be none of what was read last."""
        return bool(self.targets) and self.targets[-1].count == 0

    def word(self, ahead: int = 0) -> str:
        """A word, or a comma behind the end."""
        return self.words[self.at + ahead] if self.at + ahead < len(self.words) else ","

    def count(self) -> int | None:
        """Read a count, if one begins here."""
        two = _number([self.word(), self.word(1)])
        one = _VALUES.get(self.word(), _number([self.word()]))
        number = one if two is None else two
        start = self.at
        if number is None:
            return None
        self.at += 1 if two is None else 2
        measure = _MEASURES.get(self.word())
        if measure and (self.word() == "dozen" or self.words[start] in _ARTICLES):
            number *= measure
            self.at += 1
            self.at += self.word() == "of"
        return number

    def phrase(self) -> list[str]:
        """Read the words up to where a thing ends."""
        words: list[str] = []
        while not (self._stops() or self._counts()):
            words.append(self.word())
            self.at += 1
        return words

    def _stops(self) -> bool:
        return self.word() in _STOPS

    def _counts(self) -> bool:
        return self.word() in _VALUES or _number([self.word()]) is not None


def _prose(text: str) -> tuple[Target, ...]:
    """Targets of prose."""
    parted = re.sub(r"\b(\w+ty)-(\w+)\b", _parted, " ".join(_words(text)))
    reader = _Reader(text, parted.split(), 0, [])
    while reader.at < len(reader.words):
        _item(reader)
    return tuple(reader.targets)


def _words(text: str) -> Iterator[str]:
    """Words without the quotes and brackets around them; a comma where a mark ends one, or a line.

    Word by word and from the ends: a regular expression that looks for marks before an end tries
    every place of a run of them again.
    """
    for token in text.lower().replace("\n", " , ").split():
        opened = token.lstrip("'\"([")
        ended = opened.rstrip(",.;:!?")
        yield ended.rstrip("'\")]")
        if len(ended) < len(opened):
            yield ","


def _parted(found: re.Match[str]) -> str:
    """Twenty-one as two words; other words with a hyphen as they are."""
    return " ".join(found.groups()) if _number(found.groups()) is not None else found[0]


def _item(reader: _Reader) -> None:
    """Read one count with its thing, or pass over one word."""
    start = reader.at
    word, before = reader.word(), reader.words[start - 1] if start else ","
    if word == "without" or (word in ("or", "nor") and reader.none and reader.end == start):
        reader.at += 1
        _none(reader, start)
        return
    if word in _VAGUE:
        raise reader.refuse(f"'{word}' is no number")
    if re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?|[0-9]+[a-z]{4,}", word) and _number([word]) is None:
        raise reader.refuse(
            f"'{shown(word)}' is no count: one is a whole number from 0 to {MOST}, as a word of "
            "its own"
        )
    if word in _ARTICLES and _is_place(reader, before):
        reader.at += 1
        reader.phrase()
        return
    count = reader.count()
    if count is not None:
        _counted(reader, count, start)
    elif before in _AND and reader.end == start - 1 and not word.endswith("ing"):
        raise reader.refuse(f"'{shown(word)}' after '{before}' has no count")
    else:
        reader.place = (reader.place or word in _PLACE | _WITH) and word != ","
        reader.at += 1


def _none(reader: _Reader, start: int) -> None:
    """Read what there should be none of, behind "without", and behind "or" after a "no"."""
    reader.at += reader.word() in _DETERMINERS | {"no"}
    words = reader.phrase()
    is_doing = words[:1] and words[0].endswith("ing") and singular(words[0]) not in _ING
    if is_doing and not any(is_plural(word) for word in words[1:]):
        return  # "without looking up" is no thing
    name = _several(words) or _one(words)
    if name is None:
        said = " ".join(reader.words[start : reader.at + (not words)])
        raise reader.refuse(f"it is not clear what '{shown(said)}' asks for none of")
    reader.targets.append(_target(0, name))
    reader.place, reader.end = False, reader.at


def _is_place(reader: _Reader, before: str) -> bool:
    """Whether "a" stands before where things are, and not before one of them."""
    is_opening = before == "of" and reader.at > 1 and reader.words[reader.at - 2] in _OPENINGS
    if before == "," or is_opening or (before in _AND and not reader.place):
        return False
    if before in _PLACE:
        return True
    raise reader.refuse(
        f"it is not clear whether '{shown(f'{before} {reader.word()} {reader.word(1)}')}' is to be "
        "counted"
    )


def _counted(reader: _Reader, count: int, start: int) -> None:
    """Read the thing that a count stands before."""
    words = reader.phrase()
    if _is_opening(reader, start, words):
        return
    number = " ".join(reader.words[start : reader.at - len(words)])
    vague = _VAGUE.intersection(words[:1])
    if vague or words[-1:] == ["of"] or (number.endswith(" of") and _PAIRS.intersection(words)):
        raise reader.refuse(f"'{shown(' '.join([number, *words]))}' has no one number")
    name = _one(words) if count == 1 else _several(words)
    if name is None and count == 0:
        name = _one(words)
    if name is None:
        said = shown(" ".join([number, *words]))
        raise reader.refuse(
            f"'{said}' is not {'one thing' if count == 1 else 'a count and a plural'} for certain"
        )
    reader.targets.append(_target(count, name))
    reader.place, reader.end = False, reader.at


def _is_opening(reader: _Reader, start: int, words: list[str]) -> bool:
    """Whether "a photo of" or "a group of" was read, or, at the beginning, "a photo with"."""
    if reader.words[start] not in _ARTICLES or not words:
        return False
    if "of" in words[1:]:
        return words[words.index("of") - 1] in _OPENINGS
    return start == 0 and words[-1] in _OPENINGS and reader.word() in _WITH | {"where", "without"}


def _several(words: list[str]) -> list[str] | None:
    """The name of several things: it ends at the plural; None where it is in doubt."""
    end = words.index("of") if "of" in words[1:] else len(words)
    plurals = [i for i, word in enumerate(words[:end]) if is_plural(word)]
    if not plurals or words[0] in _NO_THING:
        return None
    if plurals != list(range(plurals[0], plurals[-1] + 1)):
        return None
    last = plurals[-1]
    return words if last + 1 == end < len(words) else words[: last + 1]


def _one(words: list[str]) -> list[str] | None:
    """The name of one thing; None where it is in doubt."""
    last = len(words)
    while last > 1 and words[last - 1].endswith("ing") and singular(words[last - 1]) not in _ING:
        last -= 1
    words = words[:last]
    end = words.index("of") if "of" in words[1:] else len(words)
    if not words or words[0] in _NO_THING:
        return None
    doubtful = any(word.endswith("ing") and word not in _ING for word in words[1:end])
    head = words[end - 1]
    return None if doubtful or (is_plural(head) and singular(head) != head) else words
