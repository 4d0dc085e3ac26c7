"""The base model's own paths from noise to picture: what the few-step model learns from.

    x_t for falling t,   dx/dt = v(x, t, c),   c a training prompt

Chunks of paths are made with the second-order ODE, each from its own seed, so that any process may
make them in any order; they are kept in a folder. A chunk holds some of the states; the ODE's path
is nearly straight between them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..samplers.paths.noise_law import noise_law
from ..samplers.paths.sigmas import uniform
from ..samplers.stepping.integrate import integrate
from ..samplers.stepping.transition import Transition
from .network import SceneNet
from .prompt import encode
from .scene import random_scene

__all__ = ["CHUNK", "TIMES", "Trajectories"]

CHUNK = 32
_SIGMAS = uniform(8, shift=2.0)
_KEPT = (0, 1, 2, 3, 4, 6, 8)
TIMES = tuple(_SIGMAS[index] for index in _KEPT)


class Trajectories:
    """Chunks of paths, made when they are asked for unless the folder has them.

    Args:
        net: The base model.
        folder: Where chunks are kept.
        seed: Of all chunks.
        dropped: Share of prompts replaced by the empty one.
    """

    def __init__(self, net: SceneNet, folder: Path, seed: int = 0, dropped: float = 0.1) -> None:
        self.net, self.folder, self.seed, self.dropped = net, folder, seed, dropped
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, index: int) -> Path:
        """File of a chunk."""
        return self.folder / f"{self.seed}-{index:04d}.safetensors"

    def chunk(self, index: int) -> tuple[Tensor, Tensor]:
        """Read or make a chunk.

        Args:
            index: Which.

        Returns:
            Contexts (CHUNK, GROUPS, FEATURES) and states at TIMES, (len(TIMES), CHUNK, 3, 64, 64),
            float16.
        """
        path = self.path(index)
        if not path.exists():
            contexts, states = self.make(index)
            part = path.with_suffix(".part")
            save_file({"contexts": contexts, "states": states}, part)
            part.replace(path)
        with safe_open(path, "pt") as file:
            return file.get_tensor("contexts"), file.get_tensor("states")

    def make(self, index: int) -> tuple[Tensor, Tensor]:
        """Make a chunk; as for chunk."""
        rng = np.random.default_rng([self.seed, index])
        contexts = torch.stack([encode(random_scene(rng).groups) for _ in range(CHUNK)])
        contexts[torch.from_numpy(rng.uniform(size=CHUNK) < self.dropped)] = 0.0
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn((CHUNK, 3, 64, 64), generator=generator)
        device = next(self.net.parameters()).device
        given = contexts.to(device)
        states: list[Tensor] = []

        def model(x: Tensor, sigma: float) -> Tensor:
            states.append(x)
            times = torch.full((CHUNK,), sigma, device=device)
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                x = x.to(memory_format=torch.channels_last)
                return self.net.denoise(x, times, given).float().contiguous()

        ode = Transition(noise_law("ode"), method="second_order")
        end = integrate(model, noise.to(device), _SIGMAS, ode, lambda _: noise)
        states.append(end)
        return contexts, torch.stack([states[i] for i in _KEPT]).half().cpu()
