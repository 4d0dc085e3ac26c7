"""What does a model that looks at the picture say of it? A score from 0 to 10, asked for as JSON.

The judge is a client: any callable that is given an instruction and pictures and hands back
verdicts. The client of an OpenAI-compatible server is client.py, where all network code is.
A picture is asked about once: verdicts are kept by the picture's bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images

__all__ = ["HIGH", "INSTRUCTION", "SCHEMA", "Client", "Judge", "Verdict", "parse_verdict"]

HIGH = 10.0
LONGEST = 50_000
TRIES = 200
INSTRUCTION = """\
You are a strict judge of generated pictures. The picture should show: {prompt}

Say in one or two short sentences what is right and what is wrong or missing. Then give a score \
from 0 (shows nothing of it) to 10 (shows all of it and is flawless). Use the whole range.

Answer with a JSON object and nothing else: {"reason": "...", "score": 7.5}"""
SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "score": {"type": "number"}},
    "required": ["reason", "score"],
    "additionalProperties": False,
}
"""Of an answer. The reason comes first, so that a model thinks before it says a number."""


@dataclass(frozen=True)
class Verdict:
    """What a judge said of a picture.

    Attributes:
        score: 0 to 10.
        reason: Its words, may be empty.
        tokens: Tokens that were sent and received for it, failed tries included; None where the
            server does not say.
        cost: Their price, None where the user gave none or the server does not count.
    """

    score: float
    reason: str = ""
    tokens: int | None = None
    cost: float | None = None


class Client(Protocol):
    """Asks about pictures."""

    def __call__(
        self,
        instruction: str,
        pictures: Sequence[NDArray[np.uint8]],
        receive: Callable[[int, Verdict], None],
    ) -> None:
        """Ask about each picture.

        Args:
            instruction: The question.
            pictures: Each (H, W, 3), red-green-blue.
            receive: Called once for each picture with its number, as answers come in, so that
                nothing is lost when a later one fails.
        """
        ...


def _strict(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def parse_verdict(text: str) -> tuple[float, str]:
    """Read an answer: a JSON object with a score, perhaps inside other text.

    There has to be exactly one: of several nobody could say which is meant, and one may be what
    the judge read in the picture.

    Args:
        text: What the model wrote.

    Returns:
        Score and reason.

    Raises:
        ValueError: No such object or several, or a score that is not a number from 0 to 10.
    """
    if len(text) > LONGEST:
        raise ValueError(f"the answer is {len(text)} characters long, {LONGEST} is the most")
    text = _said(text)
    decoder = json.JSONDecoder(parse_constant=_strict, object_pairs_hook=_once)
    all_: list[dict[str, Any]] = []
    start = text.find("{")
    for _ in range(TRIES):
        if start < 0:
            break
        end = start + 1
        try:
            value, after = decoder.raw_decode(text, start)
        except _Twice as error:  # else what stands inside of it would be looked at
            raise ValueError(f"{error}: {_short(text)}") from None
        except (ValueError, RecursionError):
            pass
        else:
            end = after
            if isinstance(value, dict) and "score" in value:
                all_.append(cast("dict[str, Any]", value))
        start = text.find("{", end)
    if start >= 0:
        raise ValueError(f"the answer holds more than {TRIES} braces: {_short(text)}")
    if len(all_) != 1:
        count = f"{len(all_)} JSON objects" if all_ else "no JSON object"
        raise ValueError(
            f"the answer holds {count} with a score, and one is wanted: {_short(text)}"
        )
    (found,) = all_
    score = found["score"]
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError(f"the score is not a number: {_short(text)}")
    if not 0 <= score <= HIGH:
        raise ValueError(f"the score is outside 0 to 10: {_short(text)}")
    return float(score), str(found.get("reason", ""))


def _said(text: str) -> str:
    """An answer without what the model said to itself before it.

    Some servers leave out the tag that opens a thought, since it stands in the prompt. A text that
    begins with the answer has no thought: there the tag is a word of the reason.
    """
    begun = text.lstrip()
    if begun.startswith(("{", "```")):
        return text
    thought, tag, after = text.partition("</think>")
    return after if tag or begun.startswith("<think>") else thought


class _Twice(ValueError):
    """An object in which a name stands twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names each stand in it once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice("a name stands twice in an object of the answer")
    return found


def _short(text: str) -> str:
    """The beginning of a text, for messages."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 200 else f"{text[:200]}...")


@dataclass(frozen=True, eq=False)
class Judge(Assessed):
    """The score that a judge gives.

    Args:
        client: Asks the judge.
        prompt: What the picture should show; stands for {prompt} in the instruction.
        instruction: The question.
        name: Of the judge, for the source.

    Raises:
        ValueError: The instruction is empty.
    """

    client: Client
    prompt: str
    instruction: str = INSTRUCTION
    name: str = "an endpoint of the user's"
    _known: dict[bytes, Verdict] = field(default_factory=dict[bytes, Verdict], repr=False)

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise ValueError(
                "the instruction is empty. Write what the judge should look at; {prompt} stands "
                "for the prompt."
            )

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="judge",
            measures="score from 0 to 10 that a model gives when it is asked about the picture",
            low=0.0,
            high=HIGH,
            scale=2.0,
            deterministic=False,
            paid=True,
            licence="the judge's own",
            source=self.name,
        )

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures, with the judge's words.

        Args:
            images: As for score.

        Returns:
            Values; tokens and cost of the question as parts (0 where the picture was asked about
            before, absent where they are not known); reasons as notes.
        """
        check_images(images, "Judge")
        pixels = (images[..., :3].detach().float().clamp(0.0, 1.0) * 255.0).round()
        pictures = list(pixels.to("cpu", torch.uint8).numpy())
        marks = [_mark(picture) for picture in pictures]
        new = {mark: marks.index(mark) for mark in marks if mark not in self._known}
        asked = list(new)

        def receive(number: int, verdict: Verdict) -> None:
            self._known[asked[number]] = verdict

        if new:
            text = self.instruction.replace("{prompt}", self.prompt)
            self.client(text, [pictures[i] for i in new.values()], receive)
        verdicts = [self._known[mark] for mark in marks]
        paid = [new.get(mark) == i for i, mark in enumerate(marks)]
        return Assessment(
            torch.tensor([v.score for v in verdicts], dtype=torch.float32, device=images.device),
            [_parts(v, p) for v, p in zip(verdicts, paid, strict=True)],
            [_note(v, p) for v, p in zip(verdicts, paid, strict=True)],
        )


def _mark(picture: NDArray[np.uint8]) -> bytes:
    """What identifies a picture."""
    return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).digest()


def _parts(verdict: Verdict, paid: bool) -> dict[str, float]:
    parts = {"tokens": verdict.tokens, "cost": verdict.cost}
    return {
        k: float(v) if paid else 0.0 for k, v in parts.items() if v is not None and math.isfinite(v)
    }


def _note(verdict: Verdict, paid: bool) -> str:
    spent = [f"{verdict.tokens} tokens"] if verdict.tokens is not None else []
    spent += [f"cost {verdict.cost:.6f}"] if verdict.cost is not None else []
    told = ", ".join(spent) if paid else "asked before"
    return f"{verdict.score:g}: {verdict.reason}" + (f" ({told})" if told else "")
