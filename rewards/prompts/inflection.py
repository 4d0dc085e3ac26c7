"""How is an English noun written for one and for several?

Rules by ending, with lists of the nouns of pictures that break them. A word of neither list that
breaks the rules is inflected wrongly; the names of the targets show it. ASCII, lower case.
"""

from __future__ import annotations

__all__ = ["is_plural", "plural", "singular", "word_set"]


def word_set(text: str) -> frozenset[str]:
    """Write a set of words as one text.

    Args:
        text: Words parted by spaces.

    Returns:
        The words.
    """
    return frozenset(text.split())


_IRREGULAR = dict(
    pair.split("/")
    for pair in word_set(
        "person/people child/children foot/feet tooth/teeth goose/geese mouse/mice louse/lice "
        "ox/oxen die/dice penny/pennies cactus/cacti fungus/fungi nucleus/nuclei "
        "radius/radii criterion/criteria phenomenon/phenomena "
        "bacterium/bacteria vertex/vertices index/indices matrix/matrices appendix/appendices "
        "quiz/quizzes axe/axes knife/knives wife/wives life/lives leaf/leaves wolf/wolves "
        "half/halves shelf/shelves thief/thieves calf/calves loaf/loaves elf/elves "
        "scarf/scarves hoof/hooves sheaf/sheaves self/selves passerby/passersby "
        "analysis/analyses crisis/crises oasis/oases"
    )
)
_SINGULAR_OF = {several: one for one, several in _IRREGULAR.items()}

_SAME = word_set(
    "sheep deer fish moose bison swine salmon trout shrimp squid aircraft spacecraft hovercraft "
    "series species offspring scissors trousers jeans pants shorts pyjamas pajamas tights "
    "binoculars tweezers pliers headphones sunglasses clothes goggles leggings cattle police "
    "barracks crossroads headquarters lego bonsai sushi samurai ninja koi"
)
"""Nouns with one form."""

_ENDS_IN_S = word_set(
    "lens gas canvas atlas christmas pancreas alias chaos cosmos rhinoceros thermos albatross "
    "gps this always sometimes towards afterwards perhaps swiss"
)
"""Singular nouns in -s beside those in -ss, -us and -is."""

_PLURALS_IN_S = word_set(
    "menus emus gnus tofus haikus skis taxis bikinis kiwis safaris rabbis khakis zucchinis paninis "
    "martinis broccolis salamis spaghettis wasabis origamis graffitis tsunamis daiquiris "
    "corgis yetis chilis"
)
"""Plurals in -us and -is."""

_O_ES = word_set(
    "tomato potato hero echo torpedo volcano mosquito domino cargo veto mango tornado "
    "buffalo superhero"
)
_IE = word_set(
    "cookie movie zombie tie pie selfie hoodie brownie smoothie genie magpie necktie calorie "
    "prairie rookie birdie veggie doggie hippie collie yorkie bowtie foodie "
    "newbie cutie sweetie budgie beanie onesie goalie lassie laddie pixie "
    "talkie cabbie groupie freebie"
)
_CHE = word_set("moustache mustache cache quiche headache toothache avalanche brioche niche")
_USE = word_set("fuse muse ruse excuse recluse use")
_IS = word_set("iris trellis mantis pelvis")
_MAN_S = word_set("human german roman talisman caiman shaman ottoman norman brahman")
"""Nouns in -man with -mans."""


def _split(word: str) -> tuple[str, str]:
    """What stands before the last hyphen, with it, and the rest."""
    at = word.rfind("-") + 1
    return word[:at], word[at:]


def plural(word: str) -> str:
    """Write a noun for several.

    Args:
        word: For one, lower case.

    Returns:
        For several.
    """
    before, noun = _split(word)
    if noun in _SAME:
        return word
    if noun in _IRREGULAR:
        return before + _IRREGULAR[noun]
    if noun.endswith("man") and noun not in _MAN_S:
        return word[:-2] + "en"
    if noun.endswith(("s", "x", "z", "ch", "sh")) or noun in _O_ES:
        return word + "es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return word[:-1] + "ies"
    return word + "s"


def singular(word: str) -> str:
    """Write a noun for one.

    Args:
        word: For several, or for one already, lower case.

    Returns:
        For one.
    """
    before, noun = _split(word)
    if not is_plural(word) or noun in _SAME:
        return word
    if noun in _SINGULAR_OF:
        return before + _SINGULAR_OF[noun]
    if noun.endswith("men"):
        return word[:-2] + "an"
    return before + _without_s(noun)


def _without_s(noun: str) -> str:
    """Take the ending of a regular plural away."""
    one, two = noun[:-1], noun[:-2]
    if noun.endswith("ies"):
        return one if one in _IE else noun[:-3] + "y"
    takes_es = (
        two in _ENDS_IN_S | _O_ES | _IS
        or noun.endswith(("sses", "xes", "shes", "zzes", "tzes"))
        or (noun.endswith("ches") and one not in _CHE)
        or (noun.endswith("uses") and not noun.endswith("ouses") and one not in _USE)
    )
    return two if takes_es else one


def is_plural(word: str) -> bool:
    """Whether a word is a noun for several, by its form.

    Args:
        word: Lower case.

    Returns:
        True for nouns with one form as well.
    """
    _, noun = _split(word)
    if noun in _SAME or noun in _SINGULAR_OF or noun in _PLURALS_IN_S:
        return True
    if (
        noun.endswith("men")
        and len(noun) > 2
        and noun not in ("omen", "specimen", "ramen", "semen")
    ):
        return True
    if noun in _ENDS_IN_S or len(noun) < 3:
        return False
    return noun.endswith("s") and not noun.endswith(("ss", "us", "is"))
