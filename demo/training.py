"""What training and distilling the embedded model share: updates, average of weights, log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .network import SceneNet

__all__ = ["Training", "cosine"]


def cosine(step: int, steps: int, warm: int) -> float:
    """Share of the learning rate at a step: linear warm-up, cosine decay to a hundredth."""
    decay = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / warm) * (0.01 + 0.99 * decay)


class Training:
    """AdamW updates of a network, whose exponential average is what is saved.

    Args:
        net: The network.
        keep: Share of the average that an update keeps, once warm.
        out: Weights file; the log goes beside it, as JSON.
        every: Updates a line of the log.
        write: What writes weights into the file.
    """

    def __init__(
        self,
        net: SceneNet,
        keep: float,
        out: Path,
        every: int,
        write: Callable[[Path, Mapping[str, Tensor]], None],
    ) -> None:
        self.net, self.keep, self.out, self.every, self.write = net, keep, out, every, write
        self.average = {name: p.detach().clone() for name, p in net.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            net.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.log: list[dict[str, float]] = []
        self.window, self.start, self.step = 0.0, time.time(), 0

    def update(self, loss: Tensor, rate: float) -> None:
        """Take one step down the loss's gradient.

        Args:
            loss: Scalar.
            rate: Learning rate.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(self.keep, self.step / (self.step + 19))
        with torch.no_grad():
            for name, p in self.net.named_parameters():
                self.average[name].lerp_(p, 1 - keep)
        self.window += float(loss.detach())
        if self.step % self.every == 0:
            seconds = time.time() - self.start
            line = {"step": self.step, "loss": self.window / self.every, "seconds": seconds}
            self.log.append(line)
            print(json.dumps(line), flush=True)
            self.window = 0.0

    def save(self) -> None:
        """Write the average and the log."""
        self.write(self.out, self.average)
        self.out.with_suffix(".json").write_text(json.dumps(self.log))
