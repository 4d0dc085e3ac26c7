"""Rewards of networks with random weights: do gradients climb them, and what do they cost?

Small CLIPs of the true architecture say whether the ascent works; their scores mean nothing, so
that all that is won is the reward's hole. CLIPs and preference models of their true sizes say what
a gradient costs beside a score, on a GPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from _guided_problem import OTHERS, REWARDS, clock

from flowsearch.demo.prompt import Group
from flowsearch.rewards.embedding.clip_score import ClipScore
from flowsearch.rewards.embedding.transformers_encoder import encoder
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.weights.holder import Local

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))

__all__ = ["NETWORK", "add_networks", "costs"]

NETWORK = "random CLIP"
PROMPT = "a photo of three red circles on the table"
TRUE_SIZES = ("clip_score", "aesthetic", "image_match", "pick_score", "hps", "image_reward")
SPREAD = 0.12
"""Of the weights: larger than those of a new model, so that pictures make a difference."""


@cache
def small_clip(seed: int, device: str) -> ClipScore:
    """A CLIP Score of 32 x 32 pictures, two layers, random weights."""
    import encoders

    network, processor = encoders.clip()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in network.parameters():
            if weights.ndim > 1:
                weights.copy_(torch.randn(weights.shape, generator=generator) * SPREAD)
    with tempfile.TemporaryDirectory() as folder:
        for part in (network.config, processor, encoders.tokenizer()):
            part.save_pretrained(folder)
        found = encoder(Local(network.eval().to(device), batch=32), Path(folder))
    assert found.text is not None
    return ClipScore(found.images, found.text, PROMPT)


def add_networks(device: str) -> None:
    """Make the random CLIP a reward, and another one, with other weights, its judge."""

    def climbed(groups: Sequence[Group], number: int) -> Any:
        del groups, number
        return small_clip(1, device)

    def other(groups: Sequence[Group], number: int) -> Any:
        del groups, number
        return small_clip(2, device)

    REWARDS[NETWORK] = climbed
    OTHERS[NETWORK] = {"other weights": other}


def costs(device: str, rows: int = 4) -> list[dict[str, Any]]:
    """What gradients of networks of their true sizes cost beside scores.

    Args:
        device: A GPU; on a CPU it takes minutes a network.
        rows: Pictures.

    Returns:
        Rows {part, reward, seconds a score, seconds a gradient, GiB}.
    """
    from _reward_networks import MAKERS, pictures

    images, table = pictures(rows), list[dict[str, Any]]()
    for name in TRUE_SIZES:
        reward, _ = MAKERS[name](rows)
        taken: list[float] = []
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for ask in (reward.score, lambda given, reward=reward: gradient_of(reward, given)):
            ask(images)
            start = clock()
            ask(images)
            taken.append((clock() - start) / rows)
        peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
        table.append(
            {
                "part": "true sizes", "reward": name, "seconds a score": taken[0],
                "seconds a gradient": taken[1], "ratio": taken[1] / taken[0], "GiB": peak,
            }
        )  # fmt: skip
        print(table[-1], flush=True)
    return table
