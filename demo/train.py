"""Train the embedded model: ``python scripts/dev.py train``.

    loss = mean | F - (x0 - m - c_skip (x - (1 - t) m)) / c_out |^2,   x = (1 - t) x0 + t eps

Scenes are drawn on the fly, so there is no data set. One prompt in ten is dropped, which makes the
empty prompt the unconditional model. AdamW, cosine decay, an exponential average of the weights is
what is kept. The same seed, device and number of threads give the same run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .network import CHECKPOINTS, CONFIG, SPREAD, Attention, Block, SceneNet
from .prompt import encode
from .scene import draw, random_scene
from .training import Training, cosine
from .weights import save_planes

__all__ = ["batch", "main"]


def batch(rng: np.random.Generator, size: int, dropped: float = 0.1) -> tuple[Tensor, Tensor]:
    """Draw scenes and their prompts.

    Args:
        rng: Source of randomness.
        size: How many.
        dropped: Share of prompts replaced by the empty one.

    Returns:
        Pictures (size, 3, 64, 64) in -1..1 and contexts (size, GROUPS, FEATURES).
    """
    scenes = [random_scene(rng) for _ in range(size)]
    pictures = np.stack([draw(scene, rng) for scene in scenes])
    contexts = torch.stack([encode(scene.groups) for scene in scenes])
    contexts[torch.from_numpy(rng.uniform(size=size) < dropped)] = 0.0
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) * 2 - 1, contexts


def times(rng: np.random.Generator, size: int) -> Tensor:
    """Draw training times: three in four where layout is decided (sigmoid of N(0.8, 1.2^2)), the
    rest uniform; shape (size,)."""
    high = 1 / (1 + np.exp(-rng.normal(0.8, 1.2, size)))
    t = np.where(rng.uniform(size=size) < 0.75, high, rng.uniform(size=size))
    return torch.from_numpy(np.clip(t, 1e-3, 1.0).astype(np.float32))


def loss_of(net: SceneNet, x0: Tensor, context: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Mean squared error of the network's preconditioned target (module docstring)."""
    t4 = t.view(-1, 1, 1, 1)
    variance = ((1 - t4) * SPREAD) ** 2 + t4 * t4
    denoised = net.denoise((1 - t4) * x0 + t4 * eps, t, context)
    return ((denoised - x0).square() * (variance / (t4 * SPREAD).square())).mean()


def main() -> None:
    """Train and write the weights and the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=7500, help="updates; the decay runs over them")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS["base"])
    parser.add_argument("--stop", type=int, help="end after this many of the steps")
    parser.add_argument("--save-every", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    device = torch.device(options.device)
    net = SceneNet(**CONFIG).to(device, memory_format=torch.channels_last)
    for module in net.modules():  # residual branches and the output start at zero
        last = {Block: "conv2", Attention: "out", SceneNet: "leave"}.get(type(module))
        if last:
            torch.nn.init.zeros_(getattr(module, last).weight)
            torch.nn.init.zeros_(getattr(module, last).bias)
    training = Training(net, 0.9985, options.out, 100, save_planes)
    last = options.stop or options.steps
    for step in range(last):
        x0, context = batch(rng, options.batch)
        t = times(rng, options.batch).to(device)
        eps = torch.randn(x0.shape, generator=generator).to(device)
        x0 = x0.to(device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(net, x0, context.to(device), t, eps)
        training.update(loss, options.rate * cosine(step, options.steps, 200))
        if (step + 1) % options.save_every == 0 or step + 1 == last:
            training.save()


if __name__ == "__main__":
    main()
