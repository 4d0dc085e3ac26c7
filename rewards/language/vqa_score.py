"""Does a language model that sees say yes? Its probability of "Yes" to questions about the picture.

    value = sum_q w_q P(yes | picture, q) / sum_q w_q                    ("mean")
    value = exp(sum_q w_q log P(yes | picture, q) / sum_q w_q)           ("geometric_mean")

With one question an atom of the prompt the geometric mean is what Kamath and others, 2512.16853
(GenEval 2), call Soft-TIFA's at the level of a prompt: the product of the atoms' probabilities,
whatever their number; the mean is the one at the level of atoms.

Source: Lin and others, 2404.01291 (VQAScore), whose question is PAPER. There the probability is
that of the answer "Yes" among all answers, which is what this reads, with the tokens that differ
only in case and blanks added up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..gradient import Gradient
from .answers import table, yes
from .vision_language import Ask, DifferentiableModel, LanguageModel

__all__ = ["COMBINE", "PAPER", "VQAScore", "questions_from_text", "weights_from_text"]

PAPER = 'Does this figure show "{prompt}"? Please answer yes or no.'
"""The question of the paper; {prompt} is replaced."""

COMBINE = ("mean", "geometric_mean")

MOST = 64
"""Questions that are asked at most: each costs a call of the model a picture."""

_MARK = re.compile(r"(?:[-*\u2022]|\(?[0-9]{1,3}[.):])\s+")
"""What a line of a list begins with, as language models write them."""

_FLOOR = 1e-30


def questions_from_text(text: str, prompt: str) -> tuple[str, ...]:
    """Read questions, one a line, of a person's or of a language model's writing.

    Args:
        text: Lines; "{prompt}" in them is replaced. Marks of a list, such as "2. ", are left out,
            and so are lines that announce one, with a colon at their end.
        prompt: What it is replaced by.

    Returns:
        At least one question.

    Raises:
        ValueError: There is none or are too many, one comes twice or holds another word in braces,
            or there is no prompt to put in.
    """
    lines = (_unmarked(line.strip()) for line in text.splitlines() if line.strip())
    questions = tuple(line for line in lines if not line.endswith(":"))
    if not questions:
        raise ValueError(f"VQA Score needs at least one question, such as the paper's: {PAPER}")
    if len(questions) > MOST:
        raise ValueError(
            f"{len(questions)} questions were given, and at most {MOST} are asked, each for every "
            "picture; ask fewer, or have the model write fewer"
        )
    if not prompt.strip() and any("{prompt}" in question for question in questions):
        raise ValueError(
            "a question holds {prompt} and the prompt is empty; write the prompt, or questions "
            "without {prompt}, such as 'Is there a red cube? Please answer yes or no.'"
        )
    for question in questions:
        if unknown := [word for word in re.findall(r"\{\w*\}", question) if word != "{prompt}"]:
            raise ValueError(
                f"the question '{question}' holds {unknown[0]}, which stands for nothing; only "
                "{prompt} is replaced, by the prompt. Write it so, or without braces."
            )
    filled = tuple(question.replace("{prompt}", prompt.strip()) for question in questions)
    for question in filled:
        if filled.count(question) > 1:
            raise ValueError(f"'{question}' is asked twice; ask once and give it twice the weight")
    return filled


def _unmarked(line: str) -> str:
    """A line of a list without its mark."""
    mark = _MARK.match(line)
    return line[mark.end() :] if mark else line


def weights_from_text(text: str, count: int) -> tuple[float, ...]:
    """Read weights, one a line.

    Args:
        text: Positive numbers, one for each question; empty for equal weights.
        count: How many questions there are.

    Returns:
        The weights.

    Raises:
        ValueError: Not as many as questions, or one is no positive number.
    """
    words = text.split()
    if not words:
        return (1.0,) * count
    try:
        weights = tuple(float(word) for word in words)
    except ValueError:
        weights = ()
    if len(weights) != count or not all(0.0 < weight < float("inf") for weight in weights):
        raise ValueError(
            f"the weights are '{' '.join(words)}' for {count} questions; write one positive number "
            "a line for each question, in their order, or nothing for equal weights"
        )
    return weights


@dataclass(frozen=True)
class VQAScore(Assessed):
    """Probability of "Yes".

    Args:
        model: Answers.
        questions: About each picture.
        weights: One a question, positive; empty for equal ones.
        combine: "mean" forgives a wrong part, "geometric_mean" does not.
        against_no: Whether the probability is that of "Yes" among "Yes" and "No" only.
    """

    model: LanguageModel
    questions: tuple[str, ...]
    weights: tuple[float, ...] = ()
    combine: str = "mean"
    against_no: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be combined."""
        if self.combine not in COMBINE:
            raise ValueError(f"combine is '{self.combine}'; it can be {' or '.join(COMBINE)}")
        if not self.questions or len(self.weights) not in (0, len(self.questions)):
            raise ValueError(f"{len(self.weights)} weights for {len(self.questions)} questions")

    @property
    def spec(self) -> RewardSpec:
        """See Reward.spec."""
        return RewardSpec(
            name="vqa_score",
            measures="Probability that a vision-language model answers yes to the questions.",
            low=0.0,
            high=1.0,
            scale=0.2,
            has_gradient=not self.why_no_gradient(),
            licence="that of the model's weights",
            source="https://arxiv.org/abs/2404.01291",
        )

    def get_models(self) -> Sequence[Any]:
        """What the host's memory manager knows the model by."""
        return self.model.get_models()

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures, with each question's probability.

        Args:
            images: See Reward.score.

        Returns:
            Values; parts by question.
        """
        check_images(images, "VQA Score")
        if not len(images):
            return Assessment(images.new_zeros(0, dtype=torch.float32))
        asks = [Ask(i, question) for i in range(len(images)) for question in self.questions]
        logits = self.model.next_token(images, asks)
        found = yes(logits, self.model.vocabulary, against_no=self.against_no).cpu()
        found = found.reshape(len(images), len(self.questions))
        values = self._together(found)
        parts = [dict(zip(self.questions, row, strict=True)) for row in table(found)]
        notes = ["yes " + ", ".join(f"{value:.3f}" for value in part.values()) for part in parts]
        return Assessment(values.to(images.device), parts, notes)

    def gradient(self, images: Tensor) -> Gradient:
        """See Differentiable.

        Args:
            images: See Reward.score.

        Returns:
            Values, and how they change with the pictures.

        Raises:
            ValueError: Not a batch of finite pictures, or a model without a gradient.
        """
        check_images(images, "VQA Score")
        why = self.why_no_gradient()
        if why or not isinstance(self.model, DifferentiableModel):
            raise ValueError(f"VQA Score has no gradient: {why}. Use another model.")
        vocabulary = self.model.vocabulary

        def value(logits: Tensor) -> Tensor:
            found = [yes(each, vocabulary, against_no=self.against_no) for each in logits]
            return self._together(torch.stack(found, dim=1))

        return self.model.gradient(images, self.questions, value)

    def why_no_gradient(self) -> str:
        """Say why the model cannot be differentiated; "" where it can."""
        if isinstance(self.model, DifferentiableModel):
            return self.model.no_gradient
        return (
            f"{type(self.model).__name__} gives its answers without a way back to the picture; "
            "take a folder by Load Vision-Language Model"
        )

    def _together(self, found: Tensor) -> Tensor:
        """One value a picture of the probabilities (B, questions)."""
        weights = found.new_tensor(self.weights or (1.0,) * len(self.questions))
        weights = weights / weights.sum()
        if self.combine == "mean":
            return (found * weights).sum(1).clamp(0.0, 1.0)
        return (found.clamp(min=_FLOOR).log() * weights).sum(1).exp().clamp(0.0, 1.0)
