"""Pictures with and without guidance, side by side, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from _guided_problem import GuidedProblem, pictures, sampled
from torch import Tensor

from flowsearch.samplers.stepping.transition import Transition

__all__ = ["Column", "draw_sheet"]


class Column(Protocol):
    """How the pictures of a column are made."""

    @property
    def world(self) -> str: ...
    @property
    def reward(self) -> str: ...
    @property
    def sigmas(self) -> list[float]: ...
    @property
    def how(self) -> Transition: ...
    @property
    def seed(self) -> int: ...


def draw_sheet(bench: Any, columns: Sequence[Column], path: Path, prompts: int = 6) -> None:
    """Write a picture: a row a prompt, the drawing that layout wants, then the columns.

    Args:
        bench: Has problem(world, reward, first, count).
        columns: What is sampled.
        path: PNG.
        prompts: How many.
    """
    from PIL import Image

    first: GuidedProblem = bench.problem("base", "layout", 0, prompts)
    wanted = torch.stack([reward.wanted for reward in first.rewards])
    shown: list[Tensor] = [torch.nn.functional.interpolate(wanted, scale_factor=8.0)]
    for column in columns:
        problem = bench.problem(column.world, column.reward, 0, prompts)
        done = sampled(problem, column.sigmas, column.how, column.seed)
        shown.append(pictures(done.clean).permute(0, 3, 1, 2).cpu())
    framed = torch.nn.functional.pad(torch.stack(shown, dim=1), (2, 2, 2, 2), value=0.5)
    rows = framed.permute(0, 3, 1, 4, 2)  # prompt, height, column, width, channel
    sheet = rows.reshape(rows.shape[0] * rows.shape[1], -1, 3)
    Image.fromarray((sheet * 255).round().to(torch.uint8).numpy()).save(path)
    print(f"written to {path}")
