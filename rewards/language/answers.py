r"""What does a language model answer? From its next-token logits to probabilities of answers.

    P(yes) = sum over the tokens that read "yes" of softmax(logits)[token]

    P(n)   = sum over token sequences that write the numeral n of
             product of P(token | those before) * P(the next token continues no numeral | all)

A vocabulary may write "10" as one token, or as "1" and "0", with a blank in front or as a token of
its own; the sum runs over all of these. That "1" ends where it does takes a call of the model with
"1" said. It is made where the numeral so far has at least LEAST of the probability, and on the
most probable way to the target; elsewhere the numeral is taken to end, which moves at most LEAST
of the probability for each token.

Source of P(yes) as a score: Lin and others, 2404.01291, section 3 (VQAScore).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, cast

import torch
from torch import Tensor

from ..prompts.counting import NUMBERS
from ..weights.holder import widened

__all__ = [
    "LEAST",
    "MORE",
    "MOST",
    "Vocabulary",
    "first_number",
    "number_probabilities",
    "table",
    "yes",
]

MOST = 20
"""Largest number with a probability of its own."""

MORE = MOST + 1
"""Where the probability of all larger numbers is."""

LEAST = 1e-3
"""Probability from which on a numeral's end is asked for and not taken for granted."""

_MARKS = str.maketrans({"\u0120": " ", "\u2581": " ", "\u010a": "\n", "\u0109": "\t"})
"""How byte-level and sentence-piece vocabularies write blanks."""

_NUMERAL = re.compile("[0-9]+")

NextToken = Callable[[Sequence[int], Sequence[tuple[int, ...]]], Tensor]
"""(rows, tokens that each has said already, equally many) -> logits, shape (rows, vocabulary), at
least float32."""


@dataclass(frozen=True)
class _Piece:
    """A token of digits.

    Attributes:
        token: Its id.
        digits: What it adds to a numeral.
        glued: Whether nothing stands before the digits, so that it can continue a numeral.
        closed: Whether something stands behind them, so that the numeral ends in it.
    """

    token: int
    digits: str
    glued: bool
    closed: bool


class Vocabulary:
    """What tokens read.

    Attributes:
        pieces: Tokens of digits.
        blanks: Tokens of nothing but blanks.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        """Read a vocabulary.

        Args:
            tokens: Token as the tokenizer writes it to its id, as get_vocab() gives.
        """
        self.pieces: list[_Piece] = []
        self.blanks: list[int] = []
        self._words: dict[str, list[int]] = {}
        for written, token in sorted(tokens.items(), key=lambda item: item[1]):
            text = "\n" if written == "<0x0A>" else written.translate(_MARKS)
            word = text.strip()
            numeral = _NUMERAL.match(word)
            if numeral:
                closed = len(numeral[0]) < len(word) or text[-1:].isspace()
                glued = text[0] == word[0]
                self.pieces.append(_Piece(token, numeral[0], glued, closed))
            elif not word and text:
                self.blanks.append(token)
            self._words.setdefault(word.casefold(), []).append(token)

    def word(self, word: str) -> list[int]:
        """Tokens that read a word, with or without blanks around, in any case.

        Args:
            word: Lower case.

        Returns:
            Their ids.

        Raises:
            ValueError: No single token reads it.
        """
        found = self._words.get(word)
        if not found:
            raise ValueError(
                f"no single token of this model reads '{word}', so the probability of that answer "
                "cannot be read from one prediction; choose another model"
            )
        return found

    def digit(self, number: int) -> list[int]:
        """Tokens that read a number of one digit and nothing more, with or without a blank before.

        Args:
            number: 0 to 9.

        Returns:
            Their ids.

        Raises:
            ValueError: No token reads it.
        """
        found = [p.token for p in self.pieces if p.digits == str(number) and not p.closed]
        if not found:
            raise ValueError(
                f"no token of this model reads '{number}', so scores cannot be read from its "
                "predictions; choose another model"
            )
        return found


def yes(logits: Tensor, vocabulary: Vocabulary, *, against_no: bool = False) -> Tensor:
    """Probability that the next token is "yes".

    Args:
        logits: Of the next token, shape (B, tokens).
        vocabulary: Of the model.
        against_no: Whether to divide by the probability of "yes" or "no"; otherwise it is among
            all tokens, as VQAScore's.

    Returns:
        Shape (B,), float32, 0 to 1.
    """
    log_p = widened(logits).log_softmax(-1)
    of_yes = log_p[:, vocabulary.word("yes")].logsumexp(-1)
    if not against_no:
        return of_yes.exp().clamp(max=1.0)
    return (of_yes - log_p[:, vocabulary.word("no")].logsumexp(-1)).sigmoid()


def table(values: Tensor) -> list[list[float]]:
    """Turn a matrix into lists.

    Args:
        values: Two dimensions.

    Returns:
        Its rows.
    """
    return cast(Any, values).tolist()


@dataclass(frozen=True)
class _Said:
    """Tokens that a row may have said.

    Attributes:
        row: Whose.
        tokens: Ids.
        digits: The numeral that they write so far.
        log_p: Logarithm of their probability.
        wanted: Whether they are the most probable way to the beginning of the target.
    """

    row: int
    tokens: tuple[int, ...] = ()
    digits: str = ""
    log_p: float = 0.0
    wanted: bool = True


def number_probabilities(
    next_token: NextToken, targets: Sequence[int], vocabulary: Vocabulary
) -> Tensor:
    """Probabilities of the numbers as an answer.

    Args:
        next_token: The model, closed over pictures and questions.
        targets: For each row the number whose probability has to be exact, 0 to 20.
        vocabulary: Of the model.

    Returns:
        Shape (rows, 22), float64: 0 to 20, then all that are larger. What is missing to 1 is the
        probability of answers that do not begin with a number.
    """
    found = torch.zeros(len(targets), MORE + 1, dtype=torch.float64)
    tokens = [piece.token for piece in vocabulary.pieces]
    said = [_Said(row) for row in range(len(targets))]
    while said:
        logits = next_token([s.row for s in said], [s.tokens for s in said])
        log_p = logits.log_softmax(-1)
        digits, blanks = table(log_p[:, tokens]), table(log_p[:, vocabulary.blanks])
        following: list[_Said] = []
        for one, of_digits, of_blanks in zip(said, digits, blanks, strict=True):
            ways = list(_ways(one, vocabulary.pieces, of_digits))
            if one.digits:
                ends = 1.0 - sum(exp(log_p) for _, _, log_p in ways)
                found[one.row, _number(one.digits)] += exp(one.log_p) * max(0.0, ends)
            following += _followed(one, ways, str(targets[one.row]), found)
            if not one.tokens:
                following += [
                    _Said(one.row, (token,), "", log_p, False)
                    for token, log_p in zip(vocabulary.blanks, of_blanks, strict=True)
                    if exp(log_p) >= LEAST
                ]
        said = following
    return found


def _ways(
    said: _Said, pieces: Sequence[_Piece], log_p: Sequence[float]
) -> Iterator[tuple[_Piece, str, float]]:
    """Pieces that can follow, the numerals they make, and the logarithms of their probability."""
    for piece, value in zip(pieces, log_p, strict=True):
        if piece.glued or not said.digits:
            yield piece, said.digits + piece.digits, value


def _followed(
    said: _Said, ways: Sequence[tuple[_Piece, str, float]], target: str, found: Tensor
) -> list[_Said]:
    """Count the numerals that end, and return those whose end is asked for."""
    best: dict[str, float] = {}
    for _, digits, value in ways:
        best[digits] = max(value, best.get(digits, value))
    following: list[_Said] = []
    for piece, digits, value in ways:
        log_p = said.log_p + value
        wanted = said.wanted and target.startswith(digits) and value == best[digits]
        is_over = piece.closed or _number(digits) == MORE or len(digits) > len(str(MOST))
        if is_over or not (wanted or exp(log_p) >= LEAST):
            found[said.row, _number(digits)] += exp(log_p)
        else:
            following.append(_Said(said.row, (*said.tokens, piece.token), digits, log_p, wanted))
    return following


def _number(digits: str) -> int:
    """Column of a numeral."""
    return min(int(digits), MORE)


def first_number(text: str) -> int | None:
    """Read the first number of an answer, as a numeral or as a word from zero to twenty.

    Args:
        text: The answer.

    Returns:
        The number; 0 for "no" and "none" where no number comes; None where there is nothing.
    """
    for word in re.findall(r"[0-9]+|[a-z]+", text.lower()):
        if word.isdigit():
            return int(word)
        if word in NUMBERS:
            return NUMBERS.index(word)
    return 0 if re.search(r"\b(no|none)\b", text.lower()) else None
