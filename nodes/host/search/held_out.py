"""What else is known of a finished picture? Rewards that are reported and never used.

They see copies of the pictures, after the searched reward did, with a random state of their own; a
reward that raises costs its value and nothing else. So a search is the same with and without them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch

from ....rewards.base import Reward, assess, named, spec_of
from .views import Rows

__all__ = ["HeldOut"]

_LOG = logging.getLogger("flowsearch")


class HeldOut:
    """Rewards beside the one that is searched for.

    Attributes:
        rewards: Name to reward, in the order connected; equal names are numbered.
    """

    def __init__(self, rewards: Sequence[Reward] = ()) -> None:
        """Name the rewards.

        Args:
            rewards: Any number.
        """
        self.rewards = named(rewards)

    def score(self, rows: Rows) -> tuple[list[dict[str, float | str]], float]:
        """Score finished pictures by every reward.

        Args:
            rows: What there is to see of them. What has been decoded is not modified.

        Returns:
            For each picture name to value, or to why there is none; and the seconds of one picture.
        """
        if not self.rewards:
            return [{} for _ in range(len(rows))], 0.0
        # a decoder's failure is not the rewards', and its time not theirs
        given = {name: rows.shown_to(reward) for name, reward in self.rewards.items()}
        begun = time.perf_counter()
        count = len(rows)
        found: list[dict[str, float | str]] = [{} for _ in range(count)]
        for name, (reward, pictures) in given.items():
            values = _values(reward, pictures)
            failed = any(isinstance(value, str) for value in values)
            if count > 1 and failed and not spec_of(reward).paid:
                # one picture that cannot be scored does not cost the others their values
                values = [_values(reward, pictures[i : i + 1])[0] for i in range(count)]
            for place, value in enumerate(values):
                found[place][name] = value
                if isinstance(value, str):
                    _LOG.warning("held-out reward %s gave no value: %s", name, value)
        return found, (time.perf_counter() - begun) / max(1, count)


def _values(reward: Reward, pictures: Any) -> list[float | str]:
    """One number a picture, or a reason."""
    try:
        with torch.random.fork_rng(devices=[]):
            values = assess(reward, pictures.clone()).values
        numbers = [float(value) for value in values.tolist()]
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:  # noqa: BLE001 - it is reported, by name
        return [f"{type(error).__name__}: {error}"] * len(pictures)
    return [n if math.isfinite(n) else f"it returned {n}" for n in numbers]
