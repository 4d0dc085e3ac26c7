"""On the few-step checkpoint predictions near pure noise rank the finished pictures; on the base
model they do not. Fixed seeds."""

import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from flowsearch.demo.network import CHECKPOINTS, SceneNet
from flowsearch.demo.prompt import encode, parse
from flowsearch.demo.weights import read_weights
from flowsearch.rewards.pixels.shape_count import ShapeCount
from flowsearch.samplers.stepping.noise import keyed_normal
from flowsearch.samplers.stepping.transition import ODE, step

PROMPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "prompts.json"
SIGMAS = (1.0, 0.95, 0.9, 0.75, 0.6, 0.4, 0.2, 0.0)
EACH = 8


@cache
def correlations(checkpoint: str) -> dict[float, float]:
    """Correlation, within a prompt, of a prediction's reward with the finished picture's."""
    net = SceneNet().eval().to(memory_format=torch.channels_last)
    net.load_state_dict(read_weights(CHECKPOINTS[checkpoint]))
    texts = json.loads(PROMPTS.read_text(encoding="utf-8"))["easy"][:6]
    early: dict[float, list[torch.Tensor]] = {s: [] for s in SIGMAS[:-1]}
    finished: list[torch.Tensor] = []
    for index, text in enumerate(texts):
        reward = ShapeCount.from_groups(parse(text))

        def score(x: torch.Tensor, reward: ShapeCount = reward) -> torch.Tensor:
            scores = reward.score(((x + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)).double()
            return scores - scores.mean()

        context = encode(parse(text)).expand(EACH, -1, -1)
        x = torch.stack([keyed_normal((3, 64, 64), 31, index, n) for n in range(EACH)])
        for sigma, after in pairwise(SIGMAS):
            with torch.inference_mode():  # in float32: bfloat16 is slow where a processor lacks it
                given = x.contiguous(memory_format=torch.channels_last)
                denoised = net.denoise(given, torch.full((EACH,), sigma), context)
            denoised = denoised.contiguous().clone()
            early[sigma].append(score(denoised))
            x = step(x, denoised, ODE.coefficients(sigma, after), None)
        finished.append(score(x))
    ends = torch.cat(finished)
    return {
        sigma: float(torch.corrcoef(torch.stack([torch.cat(rows), ends]))[0, 1])
        for sigma, rows in early.items()
    }


@pytest.mark.parametrize("sigma", [0.9, 0.95])
def test_early_predictions_rank_finished_pictures_on_the_few_step_checkpoint_only(sigma):
    few, base = correlations("few_step")[sigma], correlations("base")[sigma]
    assert few > 0.25
    assert few > base + 0.2


def test_late_predictions_rank_finished_pictures_on_both():
    assert correlations("few_step")[0.4] > 0.6
    assert correlations("base")[0.4] > 0.6
