"""Does a picture come back from the noise that was found for it?

    python scripts/dev.py bench inversion [--quick] [--json FILE] [--sheet FILE]

Held-out scenes of the embedded model, drawn, not generated, each under its own prompt, through the
real nodes in the real host: Flow Invert, then SamplerCustomAdvanced with the NOISE output and the
same list, or Flow Invert back. In the latent's units, -1 to 1: rms of what comes back minus the
picture, over all scenes; that of the median scene; the share of scenes at .05 or below; standard
deviation of the noise over all scenes, and of the scenes with the least and the most. `start` is
the state at sigma .02: noised from a seed, as the node has it, or the picture without noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from devtools.pack import load_pack

load_pack()

import _exact_models  # noqa: E402, F401  enters the host
from _report import Report  # noqa: E402
from comfy_extras.nodes_custom_sampler import (  # noqa: E402
    BasicGuider,
    DisableNoise,
    SamplerCustomAdvanced,
)

from flowsearch.demo.prompt import encode  # noqa: E402
from flowsearch.demo.scene import MAX_TOTAL, Scene, draw, held_out  # noqa: E402
from flowsearch.nodes.host.model.flow_sampler import FlowSampler  # noqa: E402
from flowsearch.nodes.sampling.demo_model import load_demo  # noqa: E402
from flowsearch.nodes.study.inversion import Invert, Variation  # noqa: E402
from flowsearch.rewards.pixels.shape_count import COLOURS, SHAPES  # noqa: E402
from flowsearch.samplers.paths.noise_law import noise_law  # noqa: E402
from flowsearch.samplers.paths.sigmas import uniform  # noqa: E402
from flowsearch.samplers.stepping.transition import Transition  # noqa: E402
from flowsearch.samplers.study.inversion import rising  # noqa: E402

BOUND = 0.05
STEPS = 50
VARIED = [(sigma, k) for sigma in (0.4, 0.7, 0.9) for k in (0.25, 1.0)]


def held_out_scenes(count: int, seed: int = 5) -> list[tuple[Scene, Tensor]]:
    """Scenes that the model was not trained on, with pictures (3, 64, 64), -1 to 1."""
    rng, found = np.random.default_rng(seed), []
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    while len(found) < count:
        picks = rng.choice(len(kinds), size=int(rng.integers(1, 4)), replace=False)
        scene = Scene(tuple((int(rng.integers(1, 7)), *kinds[int(pick)]) for pick in picks))
        if scene.total <= MAX_TOTAL and held_out(scene):
            picture = torch.from_numpy(draw(scene, rng)).permute(2, 0, 1)
            found.append((scene, picture * 2.0 - 1.0))
    return found


def conditioning(scenes: list[Scene]) -> list[Any]:
    """CONDITIONING with one row a scene."""
    return [[torch.stack([encode(scene.groups) for scene in scenes]), {}]]


def translated(scene: Scene) -> Scene:
    """The scene with its first group in another colour."""
    (count, _, shape), *rest = scene.groups
    colour = next(c for c in COLOURS if all(c != other for _, other, _ in scene.groups))
    return Scene(((count, colour, shape), *rest))


class Runs:
    """The nodes on a batch of scenes.

    Args:
        count: Number of scenes.
    """

    def __init__(self, count: int) -> None:
        scenes, pictures = zip(*held_out_scenes(count), strict=True)
        self.model = load_demo()[0]
        self.pictures = torch.stack(pictures)
        self.latent = {"samples": self.pictures}
        self.guider = self.guide(list(scenes))
        self.other = self.guide([translated(scene) for scene in scenes])

    def guide(self, scenes: list[Scene]) -> Any:
        """GUIDER for one prompt a row."""
        return BasicGuider.execute(model=self.model, conditioning=conditioning(scenes))[0]

    def up(self, mode: str, sigmas: Tensor) -> tuple[dict[str, Any], Any]:
        """Invert."""
        settings = {"direction": "to_noise"} if mode == "reversible" else {"k": 0.0}
        out = Invert.execute(self.guider, sigmas, self.latent, {"mode": mode, **settings}, 3)
        return out[0], out[1]

    def down(
        self, mode: str, sigmas: Tensor, latent: dict[str, Any], noise: Any, guider: Any
    ) -> Any:
        """Go back to pictures."""
        if mode == "reversible":
            back = {"mode": mode, "direction": "to_data"}
            return Invert.execute(guider, sigmas, latent, back, 0)[0]["samples"]
        sampler = FlowSampler(Transition(noise_law("ode"), mode))
        empty = {"samples": torch.zeros_like(self.pictures)}
        return self.sample(noise, guider, sampler, sigmas, empty)

    def sample(self, noise: Any, guider: Any, sampler: Any, sigmas: Tensor, latent: Any) -> Tensor:
        """SamplerCustomAdvanced."""
        return SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent)[0]["samples"]

    def without_noise(self, sigmas: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and return for a way up that begins at the picture itself."""
        sampler = FlowSampler(Transition(noise_law("ode"), "second_order"))
        way = torch.tensor(rising(sigmas.tolist()))
        silent = DisableNoise.execute()[0]
        start = {"samples": self.pictures}
        up = self.sample(silent, self.guider, sampler, way, start)
        top = float(way[-1])
        falling = torch.cat([way[-1:], sigmas[1:]])
        back = self.sample(silent, self.guider, sampler, falling, {"samples": up})
        return up * (1.0 - top) / top, back


def row(
    name: str, steps: int, shift: float, start: str, noise: Tensor, back: Tensor, right: Tensor
) -> dict[str, Any]:
    """One line of the table."""
    each = (back - right).pow(2).mean(dim=(1, 2, 3)).sqrt()
    spread = noise.std(dim=(1, 2, 3))
    return {
        "mode": name,
        "steps": steps,
        "shift": shift,
        "start": start,
        "rms": float((back - right).pow(2).mean().sqrt()),
        "median": float(each.median()),
        "at most .05": float((each <= BOUND).double().mean()),
        "noise std": float(noise.std()),
        "least": float(spread.min()),
        "most": float(spread.max()),
    }


def sheet(pages: list[Tensor], file: Path) -> None:
    """Write rows of pictures."""
    from PIL import Image

    lines = [torch.cat(list((page.clamp(-1, 1) + 1) / 2), dim=2) for page in pages]
    pixels = (torch.cat(lines, dim=1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).resize((pixels.shape[1] * 2, pixels.shape[0] * 2), 0).save(file)
    print(f"written to {file}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few scenes, only 50 steps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="write pictures (PNG)")
    parser.add_argument("--scenes", type=int, default=16)
    options = parser.parse_args()
    runs = Runs(4 if options.quick else options.scenes)
    report = Report("inversion")
    cases = [("second_order", STEPS, 1.0), ("reversible", STEPS, 1.0), ("exact", STEPS, 1.0)]
    if not options.quick:
        cases += [(mode, steps, 1.0) for mode in ("second_order", "exact") for steps in (25, 100)]
        cases += [(mode, STEPS, 3.0) for mode in ("second_order", "reversible", "exact")]
    pages = [runs.pictures]
    empty = {"samples": torch.zeros_like(runs.pictures)}
    for mode, steps, shift in cases:
        sigmas = torch.tensor(uniform(steps, shift))
        latent, noise = runs.up(mode, sigmas)
        found = noise.generate_noise(empty)
        back = runs.down(mode, sigmas, latent, noise, runs.guider)
        report.rows.append(row(mode, steps, shift, "noised", found, back, runs.pictures))
        print(report.rows[-1], flush=True)
        if steps == STEPS and shift == 1.0 and mode != "exact":
            pages += [found / 2, back, runs.down(mode, sigmas, latent, noise, runs.other)]
    found, back = runs.without_noise(torch.tensor(uniform(STEPS)))
    report.rows.append(row("second_order", STEPS, 1.0, "picture", found, back, runs.pictures))
    claims(report)
    if options.sheet:
        for sigma, k in VARIED:
            varied = Variation.execute(runs.guider, runs.latent, sigma, k, 20, 1)[0]
            pages.append(varied["samples"])
        sheet([page[:6] for page in pages], options.sheet)
    report.finish(options.json)


def claims(report: Report) -> None:
    """State what issue 3 names."""
    second, reversible = report.rows[0], report.rows[1]

    def claim(text: str, value: float, target: float, holds: Callable[[float], bool]) -> None:
        report.claim(f"{text}: {value:.3g}", value, target, holds(value))

    claim("50 second-order steps, median scene, rms", second["median"], BOUND, lambda v: v <= BOUND)
    claim("50 second-order steps, all scenes, rms", second["rms"], BOUND, lambda v: v <= BOUND)
    claim("noise std", second["noise std"], 1.0, lambda v: 0.9 <= v <= 1.1)
    claim("noise std, scene with the least", second["least"], 0.9, lambda v: v >= 0.9)
    claim("noise std, scene with the most", second["most"], 1.1, lambda v: v <= 1.1)
    claim("reversible, all scenes, rms", reversible["rms"], 1e-4, lambda v: v <= 1e-4)


if __name__ == "__main__":
    main()
