"""Are there as many of each thing as asked for, says a language model that sees?

For each target it is asked "How many apples are in the picture? Answer with one number.", and the
probabilities P(n) of the numbers 0 to 20, and of all larger ones together, are read from its
next-token logits (see answers), relative to all answers that are a number.

    log_probability    reward = sum over targets of log P(target)
    expected_error     reward = - sum over targets of sum_n P(n) |n - target|
    greedy_text        reward = - sum over targets of |first number of its answer - target|

Larger numbers count as 21. An answer without a number counts as 21 wrong; the last form is for
models whose logits cannot be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import torch
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..prompts.counting import Target
from .answers import MORE, MOST, first_number, number_probabilities
from .vision_language import Ask, LanguageModel

__all__ = ["METHODS", "QUESTION", "VLMCount"]

QUESTION = "How many {things} are in the picture? Answer with one number."
"""{things} is replaced by the plural, {thing} by the singular."""

METHODS = ("log_probability", "expected_error", "greedy_text")
LENGTH = 16
"""Most tokens of a greedy answer."""

FLOOR = 1e-30
"""Least probability, so that a reward is finite: its logarithm is -69.08."""


@dataclass(frozen=True)
class VLMCount(Assessed):
    """Counts by asking.

    Args:
        model: Answers.
        targets: What there should be, each at most 20.
        method: One of METHODS.
        question: With "{things}" or "{thing}".
    """

    model: LanguageModel
    targets: tuple[Target, ...]
    method: str = "log_probability"
    question: str = QUESTION

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        if self.method not in METHODS:
            raise ValueError(f"method is '{self.method}'; it can be {', '.join(METHODS)}")
        if "{things}" not in self.question and "{thing}" not in self.question:
            raise ValueError(
                f"the question '{self.question}' names no thing; write {{things}} where the plural "
                f"belongs or {{thing}} for the singular, as in '{QUESTION}'"
            )
        for target in self.targets:
            if target.count > MOST:
                raise ValueError(
                    f"{target.count} {target.plural} are too many for VLM Count, which knows 0 to "
                    f"{MOST}; ask for fewer, or use Detector Count"
                )
        if not self.targets:
            raise ValueError("VLM Count has no targets; name at least one, such as 'red apple: 3'")

    @property
    def spec(self) -> RewardSpec:
        """See Reward.spec."""
        count = len(self.targets)
        is_text, is_log = self.method == "greedy_text", self.method == "log_probability"
        return RewardSpec(
            name="vlm_count",
            measures=(
                "Log probability of the right counts, by a vision-language model."
                if is_log
                else "Minus the error of a vision-language model's counts."
            ),
            low=-70.0 * count if is_log else -float(count * MORE),
            high=0.0,
            quantum=1.0 if is_text else 0.0,
            scale=float(count) if is_text else 0.5 * count,
            licence="that of the model's weights",
            source="FlowSearch",
        )

    def get_models(self) -> Sequence[Any]:
        """What the host's memory manager knows the model by."""
        return self.model.get_models()

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures, with what was counted.

        Args:
            images: See Reward.score.

        Returns:
            Values; parts by target; a line of counts a picture.
        """
        check_images(images, "VLM Count")
        if not len(images):
            return Assessment(images.new_zeros(0, dtype=torch.float32))
        asks = [
            Ask(i, self.question.replace("{things}", t.plural).replace("{thing}", t.name))
            for i in range(len(images))
            for t in self.targets
        ]
        said = self._read if self.method == "greedy_text" else self._ask
        rewards, parts, notes = said(images, asks)
        count = len(self.targets)
        values = torch.tensor(rewards).reshape(-1, count).sum(1)
        joined: list[Mapping[str, float]] = []
        lines: list[str] = []
        for i in range(0, len(asks), count):
            joined.append({k: v for part in parts[i : i + count] for k, v in part.items()})
            lines.append(", ".join(notes[i : i + count]))
        return Assessment(values.to(images.device, torch.float32), joined, lines)

    def _ask(
        self, images: Tensor, asks: Sequence[Ask]
    ) -> tuple[list[float], list[dict[str, float]], list[str]]:
        """Rewards, parts and notes of each question, by the probabilities of its answers."""

        def next_token(rows: Sequence[int], said: Sequence[tuple[int, ...]]) -> Tensor:
            return self.model.next_token(
                images,
                [
                    Ask(asks[i].picture, asks[i].question, tokens)
                    for i, tokens in zip(rows, said, strict=True)
                ],
            )

        targets = list(self.targets) * len(images)
        found = number_probabilities(next_token, [t.count for t in targets], self.model.vocabulary)
        rewards: list[float] = []
        parts: list[dict[str, float]] = []
        notes: list[str] = []
        for target, row in zip(targets, found, strict=True):
            number = float(row.sum())
            share = row / max(number, FLOOR)
            numbers = torch.arange(MORE + 1, dtype=share.dtype)
            right = max(float(share[target.count]), FLOOR)
            error = float((share * (numbers - target.count).abs()).sum())
            mode = int(row.argmax())
            rewards.append(log(right) if self.method == "log_probability" else -error)
            parts.append(
                {
                    f"{target.name}: expected": float((share * numbers).sum()),
                    f"{target.name}: most likely": float(mode),
                    f"{target.name}: probability of {target.count}": right,
                    f"{target.name}: answers with a number": number,
                }
            )
            said = f"more than {MOST}" if mode == MORE else str(mode)
            notes.append(f"{said} {target.plural}, {target.count} wanted ({right:.0%} probable)")
        return rewards, parts, notes

    def _read(
        self, images: Tensor, asks: Sequence[Ask]
    ) -> tuple[list[float], list[dict[str, float]], list[str]]:
        """The same, by the first number of a greedy answer."""
        answers = self.model.answer(images, asks, LENGTH)
        rewards: list[float] = []
        parts: list[dict[str, float]] = []
        notes: list[str] = []
        for target, answer in zip(list(self.targets) * len(images), answers, strict=True):
            number = first_number(answer)
            counted = None if number is None else min(number, MORE)
            rewards.append(-float(MORE if counted is None else abs(counted - target.count)))
            parts.append({} if counted is None else {f"{target.name}: counted": float(counted)})
            notes.append(f"'{answer.strip()}' for {target.count} {target.plural}")
        return rewards, parts, notes
