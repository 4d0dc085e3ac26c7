"""What goes to a judge and what comes back: pictures as addresses, answers, and what they cost."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .config import Endpoint

__all__ = ["Spent", "content_of", "data_url"]

MOST_TOKENS = 10**9
"""Of one answer; a server that says more does not count."""


@dataclass
class Spent:
    """What questions cost.

    Attributes:
        questions: Answers that were received, whether they could be read or not.
        sent: Tokens sent.
        received: Tokens received.
        counted: Answers that said how many.
    """

    questions: int = 0
    sent: int = 0
    received: int = 0
    counted: int = 0

    def add(self, usage: object) -> None:
        """Count an answer.

        Args:
            usage: The field of this name of the answer.
        """
        self.questions += 1
        table = cast("dict[str, Any]", usage) if isinstance(usage, dict) else {}
        numbers = [table.get(name) for name in ("prompt_tokens", "completion_tokens")]
        if all(isinstance(n, int) and 0 <= n <= MOST_TOKENS for n in numbers):
            self.sent += cast("int", numbers[0])
            self.received += cast("int", numbers[1])
            self.counted += 1

    def merge(self, other: Spent) -> None:
        """Count what another counted.

        Args:
            other: What to add.
        """
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def tokens(self) -> int | None:
        """Tokens in all, None where not every answer told."""
        return self.sent + self.received if self.counted == self.questions else None

    def cost(self, endpoint: Endpoint) -> float | None:
        """Price in the user's currency, None where there is no price or no count."""
        prices = (endpoint.price_input, endpoint.price_output)
        if self.tokens() is None or not any(prices):
            return None
        return (self.sent * prices[0] + self.received * prices[1]) / 1e6

    def told(self, endpoint: Endpoint) -> str:
        """In words."""
        tokens, cost = self.tokens(), self.cost(endpoint)
        text = f"{self.questions} answers"
        text += f", {tokens} tokens" if tokens is not None else ", tokens not told"
        return text + (f", cost {cost:.6f}" if cost is not None else "")


def content_of(text: str, spent: Spent) -> str:
    """Take the model's words out of an answer.

    Args:
        text: JSON.
        spent: Where its tokens are counted.

    Returns:
        The words.

    Raises:
        ValueError: It is no such answer, a refusal, or it was cut off.
    """
    try:
        answer: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"the answer is not JSON: {text[:200]!r}") from None
    table = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    spent.add(table.get("usage"))
    try:
        choice: Any = table["choices"][0]
        message: Any = choice["message"]
        reason: Any = choice.get("finish_reason")
        content: Any = message.get("content")
        refusal: Any = message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"the answer holds no choices with a message: {text[:200]!r}") from None
    if refusal or reason == "content_filter":
        raise ValueError(f"the judge refused: {str(refusal or reason)[:200]!r}")
    if reason == "length":
        raise ValueError("the answer was cut off; raise max_tokens in judges.yaml")
    if not isinstance(content, str):
        raise ValueError(f"the answer holds no text: {text[:200]!r}")
    return content


def data_url(picture: NDArray[np.uint8], size: int, kind: str) -> str:
    """Write a picture into an address.

    Args:
        picture: Shape (H, W, 3).
        size: Longer side at most, pixels.
        kind: "jpeg" or "png".

    Returns:
        data:image/...;base64,...
    """
    image = Image.fromarray(picture)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
