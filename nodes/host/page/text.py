"""The one door for words: what is said to the page or the log comes through here.

A judge's reason, words that were read in a picture, the name of a file or a class, what a foreign
reward raises: all of it may hold markup, control characters, half of a surrogate pair, or no end.
Pages of older hosts put progress text into innerHTML as it is, and newer ones escape it; so markup
is not escaped here but broken, by a character without width, which reads the same in all of them.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import Any

__all__ = ["MOST_LINES", "cleaned", "for_page", "guard_errors", "guard_log", "json_for_page"]

MOST_WORD = 300  # characters of one word: file names are shorter
SHOWN_WORD = 120  # of one that is longer
MOST_LINE = 1200
MOST_LINES = 60
TAIL = 400  # of a line that is cut: what is to be done stands at the end of our sentences

_BREAK = "\u200b"  # no width
_BAD = "\ufffd"
# controls but for the line's end, surrogates, and what turns the direction of the rest of a line
_UNSEEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LONG = re.compile(rf"\S{{{MOST_WORD + 1},}}")
# the first characters of a tag, a comment, a reference, and of the page's own form of a link
_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])|&(?=[a-zA-Z#])|\[(?=\[)")

_LOG = logging.getLogger("flowsearch")


def cleaned(text: str) -> str:
    """Make any text fit to be read: nothing unseen, nothing without end.

    Args:
        text: Anything.

    Returns:
        The same where there is nothing to mend. What cannot be seen is a replacement character, a
        tab a space; of long words the beginning is kept, of long lines both ends, of many lines the
        first.
    """
    whole = text.replace("\r\n", "\n").replace("\t", " ")
    lines = whole.split("\n", MOST_LINES)
    more = whole.count("\n") + 1 - MOST_LINES
    if more > 0:
        lines[MOST_LINES:] = [f"... ({more} more lines)"]
    return "\n".join(map(_cut, lines))


def _cut(line: str) -> str:
    """One line."""
    if len(line) > 64 * MOST_LINE:  # what follows is linear, and nobody reads it
        line = line[: 64 * MOST_LINE]
    seen = _UNSEEN.sub(_BAD, line)
    seen = _LONG.sub(lambda word: f"{word[0][:SHOWN_WORD]}... ({len(word[0])} characters)", seen)
    if len(seen) <= MOST_LINE:
        return seen
    return f"{seen[: MOST_LINE - TAIL - 5]} ... {seen[-TAIL:]}"


def for_page(text: str) -> str:
    """Make any text fit to be shown by the host's page, of whatever version.

    Args:
        text: Anything.

    Returns:
        Clean text in which nothing is markup, and which reads the same.
    """
    return _MARKUP.sub(lambda start: start[0] + _BREAK, cleaned(text))


def json_for_page(data: Any, indent: int | None = None) -> str:
    """Write JSON that is no markup anywhere and reads back as it was.

    Args:
        data: JSON types.
        indent: See json.dumps().

    Returns:
        ASCII.
    """
    text = json.dumps(data, indent=indent)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def guard_errors(error: BaseException) -> None:
    """Clean the words of an error, and of those that led to it, in place.

    The host shows the first on the page and writes all to its log.

    Args:
        error: Any.

    Raises:
        RuntimeError: Its words are its class's own, and would be markup on the page.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        current.args = tuple(for_page(a) if isinstance(a, str) else a for a in current.args)
        current = current.__cause__ or current.__context__
    words = str(error)
    if _MARKUP.search(words) or _UNSEEN.search(words):
        raise RuntimeError(for_page(f"{type(error).__name__}: {words}")) from None


class _Cleaner(logging.Filter):
    """Cleans every record of our logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean one; it is kept.

        Args:
            record: The record. Changed.

        Returns:
            True.
        """
        record.msg, record.args = cleaned(record.getMessage()), ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = cleaned("".join(traceback.format_exception(*record.exc_info)).strip())
        return True


def guard_log() -> None:
    """Let all that our logger writes through the door, whoever writes it; once is enough."""
    if not any(isinstance(each, _Cleaner) for each in _LOG.filters):
        _LOG.addFilter(_Cleaner())
