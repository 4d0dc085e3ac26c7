"""Which words does a prompt hold that was written for the sampler's text encoder?

Prompts are copied from CLIP Text Encode with its syntax and that of prompt packs. A reward wants to
know what the picture should show, so the marks are taken out and what they are around stays:

    (red:1.3) ((red))    weights          red
    <lora:name:0.8>      a LoRA           nothing
    [cat:dog:0.5]        a change         dog, which the picture ends as
    [cat|dog] {cat|dog}  alternatives     cat dog
    __colour__           a wildcard       nothing: nobody knows here what was drawn
    embedding:name       an embedding     nothing
    BREAK                a break          nothing

A mark after a backslash is the character. Each text is read once, from left to right.
"""

from __future__ import annotations

import re

__all__ = ["words_of"]

DEEP = 8  # brackets within brackets; further ones are characters
_CLOSING = {")": "(", "]": "[", "}": "{"}
_TAGS = (
    ("a LoRA or the like", re.compile(r"<[A-Za-z]{2,16}:[^<>\n]{1,200}>")),
    ("a wildcard", re.compile(r"__[A-Za-z0-9/*-]{1,60}(?:_[A-Za-z0-9/*-]{1,60}){0,3}__")),
    ("a break", re.compile(r"\bBREAK\b")),
    ("an embedding", re.compile(r"\bembedding:[^\s,()\[\]]{1,100}")),
)


def words_of(text: str) -> tuple[str, list[str]]:
    """Take a prompt's syntax out.

    Args:
        text: A prompt.

    Returns:
        Its words, and what was taken out: "weights", "a LoRA or the like" and so on, each once.
    """
    found: list[str] = []
    for name, pattern in _TAGS:
        text, count = pattern.subn(" ", text)
        found += [name] * bool(count)
    open_: list[tuple[str, list[str]]] = [("", [])]
    at = 0
    while at < len(text):
        mark = text[at]
        if mark == "\\" and text[at + 1 : at + 2] in (*"()[]{}\\",):
            open_[-1][1].append(text[at + 1])
            at += 2
            continue
        if mark in "([{" and len(open_) <= DEEP:
            open_.append((mark, []))
        elif mark in _CLOSING and open_[-1][0] == _CLOSING[mark]:
            name, inside = _inside(mark, "".join(open_.pop()[1]))
            open_[-1][1].append(inside)
            found += [name] if name else []
        else:
            open_[-1][1].append(mark)
        at += 1
    while len(open_) > 1:  # what was never closed is a character
        mark, pieces = open_.pop()
        open_[-1][1].extend([mark, *pieces])
    if not found:
        return text.replace("\\(", "(").replace("\\)", ")"), []
    return " ".join("".join(open_[0][1]).split()), [*dict.fromkeys(found)]


def _inside(closing: str, text: str) -> tuple[str, str]:
    """What a pair of brackets was for, and what stays of it."""
    before, colon, after = text.rpartition(":")
    if closing == ")":
        return "weights", before if colon and before and _is_number(after) else text
    if "|" in text:
        return "alternatives", text.replace("|", " ")
    if closing == "]" and colon and _is_number(after):
        first, second, later = before.partition(":")
        return "a change on the way", (later or first) if second else first
    return "", f"{'[' if closing == ']' else '{'}{text}{closing}"


def _is_number(text: str) -> bool:
    try:
        float(text[:16])
    except ValueError:
        return False
    return len(text) <= 16
