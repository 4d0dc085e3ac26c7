"""What else is known of a finished picture? Rewards that are reported and never used.

They see copies of the pictures, after the searched reward did, with a random state of their own; a
reward that raises costs its value and nothing else. So a search is the same with and without them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence

import comfy.model_management
import torch
from torch import Tensor

from ...rewards.base import Reward, named, spec_of

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

    def score(self, seen: Mapping[str, Tensor]) -> tuple[list[dict[str, float | str]], float]:
        """Score finished pictures by every reward.

        Args:
            seen: Domain of a reward to what it scores: pictures (B, H, W, C), 0 to 1, under
                "image", the same as LATENT holds them under "latent". Not modified.

        Returns:
            For each picture name to value, or to why there is none; and the seconds of one picture.
        """
        begun = time.perf_counter()
        count = len(next(iter(seen.values())))
        found: list[dict[str, float | str]] = [{} for _ in range(count)]
        for name, reward in self.rewards.items():
            pictures = seen[spec_of(reward).domain]
            values = _values(reward, pictures)
            if count > 1 and any(isinstance(value, str) for value in values):
                # one picture that cannot be scored does not cost the others their values
                values = [_values(reward, picture[None])[0] for picture in pictures]
            for place, value in enumerate(values):
                found[place][name] = value
                if isinstance(value, str):
                    _LOG.warning("held-out reward %s gave no value: %s", name, value)
        return found, (time.perf_counter() - begun) / max(1, count)


def _values(reward: Reward, pictures: Tensor) -> list[float | str]:
    """One number a picture, or a reason."""
    try:
        with torch.random.fork_rng(devices=[]):
            values = reward.score(pictures.clone())
        if tuple(values.shape) != (pictures.shape[0],):
            raise ValueError(
                f"it returned values of shape {tuple(values.shape)} for {pictures.shape[0]} "
                "pictures; a reward returns one value a picture"
            )
        numbers = [float(value) for value in values.tolist()]
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:  # noqa: BLE001 - it is reported, by name
        return [f"{type(error).__name__}: {error}"] * len(pictures)
    return [n if math.isfinite(n) else f"it returned {n}" for n in numbers]
