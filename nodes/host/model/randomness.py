"""Torch's global generator, as a run of the host finds it: seeded, and past the initial noise.

The host's Random Noise draws from the global generator, so what draws from it later (samplers of
RES4LYF, which seed their own from torch.initial_seed(), and others) is fixed by the seed there. A
search runs many pictures one after another, so each run gets that state from its own seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.sample
import torch

__all__ = ["begin_as_the_host", "seeded_as_the_host"]


def begin_as_the_host(latent: Any, seed: int) -> None:
    """Leave the global generator as the host's Random Noise leaves it.

    Args:
        latent: As LATENT holds it; one row for a run of one picture.
        seed: Of the run.
    """
    comfy.sample.prepare_noise(latent, seed)  # seeds it and draws; what it draws is not used


@contextmanager
def seeded_as_the_host(latent: Any, seed: int) -> Iterator[None]:
    """Give a run that state, and the process its own again.

    Args:
        latent: As LATENT holds it.
        seed: Of the run.

    Yields:
        Nothing.
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        begin_as_the_host(latent, seed)
        yield
