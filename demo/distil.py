"""Distil the embedded model to one to four steps: ``python scripts/dev.py distil``.

    loss = mean ( sqrt(s^2 |D(x_t, t, c) - x_0|^2 + h^2) - h ),   s = 1 / c_out(t)

The student starts as the base model and learns where the base model's ODE ends: consistency
distillation (Song et al. 2023, arXiv:2303.01469) with the end of the path itself as the target
(Luhman and Luhman 2021, arXiv:2101.02388). Its inputs are states of that path, and points of the
straight line between the path's ends (reflow: Liu et al. 2022, arXiv:2209.03003); the answer is the
same picture for both. The distance turns from squares to absolute values, pixel by pixel (h falls),
because the mean of possible pictures is blurred and their median is not. Paths are made as training
goes and each is used many times, at different t, mirrored or not. The same seed, device and number
of threads give the same run.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .network import CHECKPOINTS, SPREAD, SceneNet
from .training import Training, cosine
from .trajectories import CHUNK, TIMES, Trajectories
from .weights import read_weights, save_difference

__all__ = ["main", "states_at"]

PATHS = Path(tempfile.gettempdir()) / "flowsearch_paths"
HUBER = (1.0, 0.05)


def times(rng: np.random.Generator, size: int) -> Tensor:
    """Draw training times (size,): a third are 1, half uniform above .7, the rest below."""
    kind = rng.uniform(size=size)
    high, low = rng.uniform(0.7, 1.0, size), rng.uniform(0.02, 0.7, size)
    t = np.where(kind < 0.33, 1.0, np.where(kind < 0.83, high, low))
    return torch.from_numpy(t.astype(np.float32))


def states_at(paths: Tensor, t: Tensor, straight: Tensor) -> Tensor:
    """States of paths at given times.

    Args:
        paths: States at TIMES, (len(TIMES), B, 3, 64, 64).
        t: Times (B,).
        straight: Which rows take the straight line between the ends; (B,), bool.

    Returns:
        States (B, 3, 64, 64).
    """
    grid = torch.tensor(TIMES)
    after = torch.searchsorted(-grid, -t).clamp(1, len(TIMES) - 1)
    first = torch.where(straight, 0, after - 1)
    second = torch.where(straight, len(TIMES) - 1, after)
    rows = torch.arange(len(t))
    share = ((t - grid[second]) / (grid[first] - grid[second])).view(-1, 1, 1, 1)
    return paths[second, rows] + share * (paths[first, rows] - paths[second, rows])


def loss_of(
    net: SceneNet, x: Tensor, t: Tensor, context: Tensor, x0: Tensor, huber: float
) -> Tensor:
    """Pseudo-Huber distance of the prediction to the end of the path (module docstring)."""
    t4 = t.view(-1, 1, 1, 1)
    scale = (((1 - t4) * SPREAD) ** 2 + t4 * t4) / (t4 * SPREAD) ** 2
    square = (net.denoise(x, t, context) - x0).square() * scale
    return ((square + huber**2).sqrt() - huber).mean()


class Buffer:
    """The paths that there are, growing chunk by chunk; which there are depends on the step alone.

    Args:
        source: Where chunks come from.
        first: Chunks at the first step.
        every: Steps until the next chunk joins.
        total: Most chunks.
    """

    def __init__(self, source: Trajectories, first: int, every: int, total: int) -> None:
        self.source, self.first, self.every, self.total = source, first, every, total
        self.chunks: list[tuple[Tensor, Tensor]] = []

    def batch(self, step: int, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """Draw paths and their contexts, half of them mirrored."""
        while len(self.chunks) < min(self.total, self.first + step // self.every):
            self.chunks.append(self.source.chunk(len(self.chunks)))
        picks = rng.integers(0, CHUNK * len(self.chunks), size=size)
        paths = torch.stack([self.chunks[i // CHUNK][1][:, i % CHUNK] for i in picks], 1).float()
        contexts = torch.stack([self.chunks[i // CHUNK][0][i % CHUNK] for i in picks])
        mirrored = torch.from_numpy(rng.uniform(size=size) < 0.5)
        paths[:, mirrored] = paths[:, mirrored].flip(-1)
        return paths, contexts


def main() -> None:
    """Distil and write the weights and the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="updates; the decay runs over them")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paths", type=Path, default=PATHS, help="folder of paths, 1.1 GB")
    parser.add_argument("--first", type=int, default=60, help="chunks of paths at the first step")
    parser.add_argument("--every", type=int, default=10, help="steps until the next chunk joins")
    parser.add_argument("--chunks", type=int, default=200, help="most chunks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS["few_step"])
    parser.add_argument("--stop", type=int, help="end after this many of the steps")
    parser.add_argument("--save-every", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rng = np.random.default_rng(options.seed)
    device = torch.device(options.device)
    base = read_weights(CHECKPOINTS["base"])
    teacher, net = SceneNet(), SceneNet()
    for model in (teacher, net):
        model.load_state_dict(base)
        model.to(device, memory_format=torch.channels_last)
    buffer = Buffer(
        Trajectories(teacher, options.paths, options.seed),
        options.first,
        options.every,
        options.chunks,
    )
    training = Training(net, 0.995, options.out, 50, save_difference)
    last = options.stop or options.steps
    for step in range(last):
        huber = HUBER[0] * (HUBER[1] / HUBER[0]) ** min(1.0, 2 * step / options.steps)
        paths, context = buffer.batch(step, rng, options.batch)
        t = times(rng, options.batch)
        x = states_at(paths, t, torch.from_numpy(rng.uniform(size=options.batch) < 0.4))
        x = x.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            ends = paths[-1].to(device)
            loss = loss_of(net, x, t.to(device), context.to(device), ends, huber)
        training.update(loss, options.rate * cosine(step, options.steps, 50))
        if (step + 1) % options.save_every == 0 or step + 1 == last:
            training.save()


if __name__ == "__main__":
    main()
