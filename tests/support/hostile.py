"""Inputs that somebody spoilt at random, the same ones every time; `dev.py soak` asks for more."""

import os
import random
from collections.abc import Iterator

COUNT = int(os.environ.get("FLOWSEARCH_HOSTILE", "20"))

WORDS = (
    *(
        '{"score": ',
        '"reason": "',
        "10}",
        "3.5",
        "}",
        '"',
        "{",
        "[",
        "]",
        ",",
        "null",
        "NaN",
        "1e999",
    ),
    *(
        "</think>",
        "<think>",
        "```json\n",
        "```",
        "\n",
        "\\",
        "\\u0000",
        "\ud800",
        "\x00",
        " ",
        "-1",
    ),
    *("<img src=x onerror=alert(1)>", "(red:1.3)", "<lora:a:1>", "[a:b:.5]", "two cats", ": 1\n"),
    *(
        "a" * 500,
        "9" * 400,
        "'" * 50,
        "and ",
        "no ",
        "{prompt}",
        "__animal__",
        "\u202e",
        "\U0001f600",
    ),
)


def spoilt(whole: bytes, count: int = COUNT, seed: int = 0) -> Iterator[bytes]:
    """A file with bytes changed, cut, doubled or put in."""
    rng = random.Random(seed)
    for _ in range(count):
        made = bytearray(whole)
        for _ in range(rng.choice((1, 1, 1, 3, 20))):
            place = rng.randrange(len(made) + 1)
            end = min(len(made), place + rng.choice((1, 2, 8, 200)))
            kind = rng.randrange(4)
            if kind == 0 and place < len(made):
                made[place] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del made[place:end]
            elif kind == 2:
                made[place:place] = made[place:end]
            else:
                made[place:end] = rng.randbytes(end - place)
        yield bytes(made)


def texts(count: int = COUNT, seed: int = 0) -> Iterator[str]:
    """Texts of pieces that have meant something to somebody."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join(rng.choices(WORDS, k=rng.choice((1, 3, 10, 40))))
