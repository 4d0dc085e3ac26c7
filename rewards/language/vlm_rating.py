"""How good is it, from 1 to 5? The expectation of a language model's answer over its score tokens.

    E = sum_n n P(n) / sum_n P(n)  +  P(".") sum_d (d / 10) P(d) / sum_d P(d)

n runs over the scale, d over 0 to 9; the second term is read behind the most probable n, where the
model writes a point there with at least LEAST of its probability. A whole answer may hold several
scores: what stands between them is said for the model, and each score is read behind the most
probable ones before it. The expectation tells pictures apart to which the model would write the
same number, and it can be searched by.

Source: expectation over score tokens as in Liu and others, 2303.16634 (G-Eval), section 2; the
form UNIFIED_REWARD is that of Wang and others, 2503.05236 (its prompt: MIT, 2025, Yibin Wang).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..prompts.long_text import shown
from .answers import LEAST, table
from .vision_language import Ask, LanguageModel

__all__ = ["ANSWER", "QUESTION", "SCORE", "UNIFIED_REWARD", "Form", "VLMRating"]

SCORE = "{score}"
"""What stands for a score in an answer."""

MOST = 16
"""Scores of an answer at most: each costs two or three calls of the model a picture."""

QUESTION = (
    'How well does this picture show "{prompt}", and how good does it look? Rate it from 1 (bad) '
    "to 5 (excellent). Answer with the number only."
)
ANSWER = SCORE


@dataclass(frozen=True)
class Form:
    """How a model is asked and answers.

    Attributes:
        question: {prompt} in it is replaced.
        answer: What the model begins with, {score} where a number of its own stands.
        lowest: Of the scale, 0 to 8.
        highest: Of the scale, to 9.
    """

    question: str = QUESTION
    answer: str = ANSWER
    lowest: int = 1
    highest: int = 5


UNIFIED_REWARD = Form(
    question=Path(__file__).with_name("unified_reward.txt").read_text("utf-8").strip(),
    answer="\n".join(
        f"{axis} Score (1-5): {SCORE}" for axis in ("Alignment", "Coherence", "Style")
    ),
)
"""What UnifiedReward and UnifiedReward-2.0 were trained to answer about single pictures."""


@dataclass(frozen=True)
class VLMRating(Assessed):
    """Expected score.

    Args:
        model: Answers.
        form: How it is asked.
        prompt: What the picture should show; may be empty where the question names none.
        weights: One a score of the answer, positive; empty for equal ones.

    Raises:
        ValueError: A question without the prompt that it needs, an answer without a score, a scale
            that is none, or weights of another number.
    """

    model: LanguageModel
    form: Form
    prompt: str = ""
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        form, scores = self.form, self.form.answer.count(SCORE)
        if not form.question.strip():
            raise ValueError(f"VLM Rating was given an empty question; ask, such as: {QUESTION}")
        if "{prompt}" in form.question and not self.prompt.strip():
            raise ValueError(
                "the question holds {prompt} and the prompt is empty; write the prompt, or a "
                "question without {prompt}"
            )
        if not scores:
            raise ValueError(
                f"the answer '{shown(form.answer)}' holds no {SCORE}; write it where the model's "
                f"number stands, such as 'Quality: {SCORE}', or nothing but {SCORE}"
            )
        if scores > MOST:
            raise ValueError(
                f"the answer holds {scores} scores, and at most {MOST} are read, each by calls of "
                "its own for every picture; ask for fewer"
            )
        if unknown := set(re.findall(r"\{\w*\}", form.question + form.answer)) - {
            "{prompt}",
            SCORE,
        }:
            raise ValueError(
                f"{min(unknown)} stands for nothing; {{prompt}} is replaced in the question, and "
                f"{SCORE} is read in the answer"
            )
        if not 0 <= form.lowest < form.highest <= 9:
            raise ValueError(
                f"the scale is {form.lowest} to {form.highest}; numbers of one digit can be read, "
                "the lowest first, such as 1 to 5 or 0 to 9"
            )
        if len(self.weights) not in (0, scores):
            raise ValueError(f"{len(self.weights)} weights for {scores} scores of the answer")

    @property
    def spec(self) -> RewardSpec:
        """See Reward.spec."""
        low, high = float(self.form.lowest), float(self.form.highest)
        return RewardSpec(
            name="vlm_rating",
            measures="Score that a vision-language model gives the picture, as an expectation.",
            low=low,
            high=high,
            scale=(high - low) / 8.0,
            licence="that of the model's weights",
            source="the model connected; arXiv:2303.16634",
        )

    def get_models(self) -> Sequence[Any]:
        """What the host's memory manager knows the model by."""
        return self.model.get_models()

    @cached_property
    def _before(self) -> tuple[tuple[int, ...], ...]:
        """Tokens before each score."""
        return tuple(self.model.tokens(text) for text in self.form.answer.split(SCORE)[:-1])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each score is called: the words of its line before it."""
        texts = self.form.answer.split(SCORE)[:-1]
        words = [text.rpartition("\n")[2].strip(" :=[(") or "rating" for text in texts]
        return tuple(
            word if words.count(word) == 1 else f"{word} {i + 1}" for i, word in enumerate(words)
        )

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures.

        Args:
            images: See Reward.score.

        Returns:
            Weighted means; parts by score, notes with them and with what does not look right.
        """
        check_images(images, "VLM Rating")
        if not len(images):
            return Assessment(images.new_zeros(0, dtype=torch.float32))
        said: list[tuple[int, ...]] = [()] * len(images)
        found: list[Tensor] = []
        masses: list[Tensor] = []
        for before in self._before:
            said = [(*one, *before) for one in said]
            expected, mass, written = self._number(images, said)
            said = [(*one, *digits) for one, digits in zip(said, written, strict=True)]
            found.append(expected)
            masses.append(mass)
        scores, mass = torch.stack(found, dim=1), torch.stack(masses, dim=1).amin(dim=1)
        weights = torch.tensor(self.weights or (1.0,) * len(found), dtype=torch.float64)
        values = (scores * weights).sum(dim=1) / weights.sum()
        parts = [dict(zip(self.names, row, strict=True)) for row in table(scores)]
        notes = [_note(part, float(share)) for part, share in zip(parts, mass, strict=True)]
        return Assessment(values.float().to(images.device), parts, notes)

    def _number(
        self, images: Tensor, said: Sequence[tuple[int, ...]]
    ) -> tuple[Tensor, Tensor, list[tuple[int, ...]]]:
        """Read one score of every picture.

        Args:
            images: All pictures.
            said: What each answer begins with already.

        Returns:
            Its expectation, the probability that it is on the scale at all, and the tokens of the
            most probable one.
        """
        scale = range(self.form.lowest, self.form.highest + 1)
        first = self._next(images, said)
        expected, mass, best = self._expected(first, scale)
        written: list[tuple[int, ...]] = [(token,) for token in best]
        behind = self._next(images, [(*s, *w) for s, w in zip(said, written, strict=True)])
        points = self.model.vocabulary.word(".")
        point = behind[:, points].logsumexp(dim=1).exp()
        rows = [row for row in range(len(said)) if float(point[row]) >= LEAST]
        if rows:
            dots = [points[int(behind[row, points].argmax())] for row in rows]
            more = [(*said[r], *written[r], dot) for r, dot in zip(rows, dots, strict=True)]
            tenths, _, digits = self._expected(self._next(images, more, rows), range(10))
            expected[rows] += point[rows] * tenths / 10.0
            for row, dot, digit in zip(rows, dots, digits, strict=True):
                if float(point[row]) >= 0.5:
                    written[row] = (*written[row], dot, digit)
        return expected.clamp(scale[0], scale[-1]), mass, written

    def _expected(self, log_p: Tensor, numbers: range) -> tuple[Tensor, Tensor, list[int]]:
        """Expectation over numbers of one digit, their whole probability, and the best token."""
        tokens = [self.model.vocabulary.digit(number) for number in numbers]
        each = torch.stack([log_p[:, ids].logsumexp(dim=1) for ids in tokens], dim=1)
        values = torch.tensor([*numbers], dtype=log_p.dtype)
        expected = (each.softmax(dim=1) * values).sum(dim=1)
        flat = [token for ids in tokens for token in ids]
        best = [flat[int(place)] for place in log_p[:, flat].argmax(dim=1)]
        return expected, each.logsumexp(dim=1).exp(), best

    def _next(
        self, images: Tensor, said: Sequence[tuple[int, ...]], rows: Sequence[int] | None = None
    ) -> Tensor:
        """Logarithms of the next token's probabilities; equally long beginnings share a call."""
        pictures = [*range(len(said))] if rows is None else rows
        question = self.form.question.replace("{prompt}", self.prompt.strip())
        found: dict[int, Tensor] = {}
        for length in sorted({len(one) for one in said}):
            group = [place for place, one in enumerate(said) if len(one) == length]
            asks = [Ask(pictures[place], question, said[place]) for place in group]
            logits = self.model.next_token(images, asks).double().log_softmax(dim=-1)
            found |= dict(zip(group, logits, strict=True))
        return torch.stack([found[place] for place in range(len(said))])


def _note(part: dict[str, float], share: float) -> str:
    """A line for people."""
    text = ", ".join(f"{name} {value:.3f}" for name, value in part.items())
    return text if share >= 0.5 else f"{text}; only {share:.0%} of the answer is a score"
