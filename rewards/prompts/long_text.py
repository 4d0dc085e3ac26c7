"""How much text is read, and how much of it is shown in a message?

Prompts come from workflow files, which anybody can have written. Whoever reads them takes time in
proportion to their length, and messages that quote them stay messages.
"""

from __future__ import annotations

__all__ = ["MOST_CHARACTERS", "MOST_SHOWN", "check_length", "shown"]

MOST_CHARACTERS = 65_536
"""Longest text that is read: some ten thousand words."""

MOST_SHOWN = 200
"""Longest quotation in a message."""


def check_length(text: str, what: str, remedy: str) -> None:
    """Refuse a text that is longer than any that is meant.

    Args:
        text: The text.
        what: What it is: "what to count".
        remedy: What to do instead, a sentence.

    Raises:
        ValueError: It has more than MOST_CHARACTERS characters.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"The text of {what} has {len(text):,} characters, and at most {MOST_CHARACTERS:,} are "
            f"read. {remedy}"
        )


def shown(text: str) -> str:
    """A text as it is quoted in a message.

    Args:
        text: Of any length.

    Returns:
        Without space around it; the middle of a long one is left out.
    """
    text = text.strip()
    if len(text) <= MOST_SHOWN:
        return text
    half = MOST_SHOWN // 2
    return f"{text[:half]} ... {text[-half:]}"
