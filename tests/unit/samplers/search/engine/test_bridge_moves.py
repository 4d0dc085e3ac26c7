"""A search's moves on a bridge: down by the one loop's step, up by way of the source."""

import math

import pytest
import torch

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search.engine.memory import moved
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import BRIDGES, Transition

TIMES = [0.9, 0.7, 0.4, 0.1]
SCALE = 0.6


def predict(x, t):
    return 0.5 * x + t


def noises():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, generator=generator) for _ in TIMES]


def step(state, start, to, transition, z, other_end=None):
    out = moved(
        state, start, to, transition, lambda: z, lambda rows, x, t: predict(x, t),
        other_end=other_end,
    )  # fmt: skip
    return {**out, "denoised": predict(out["x"], to)}


@pytest.mark.parametrize("method", BRIDGES)
def test_moves_down_are_the_one_loop(method):
    transition, z = Transition(noise_law("ode"), method, noise_scale=SCALE), noises()
    start = torch.ones(3, 2)
    state = {"x": start, "denoised": predict(start, TIMES[0])}
    for i in range(3):
        state = step(state, TIMES[i], TIMES[i + 1], transition, z[i])
    assert torch.equal(state["x"], integrate(predict, start, TIMES, transition, lambda i: z[i]))


@pytest.mark.parametrize("method", BRIDGES)
def test_a_move_up_goes_by_the_source_and_forgets(method):
    transition, z = Transition(noise_law("ode"), method, noise_scale=SCALE), noises()
    source = 4.0 * torch.ones(3, 2)
    start = torch.ones(3, 2)
    state = step({"x": start, "denoised": start}, 0.9, 0.5, transition, z[0])
    with pytest.raises(ValueError, match="goes by its other end"):
        step(state, 0.5, 0.8, transition, z[1])
    up = step(state, 0.5, 0.8, transition, z[1], source)
    share = 0.3 / 0.5
    noise = SCALE * math.sqrt(0.3 * (1.0 - share)) * z[1]
    assert torch.allclose(up["x"], state["x"] + share * (source - state["x"]) + noise)
    fresh = step({"x": up["x"], "denoised": up["denoised"]}, 0.8, 0.6, transition, z[2])
    assert torch.equal(step(up, 0.8, 0.6, transition, z[2], source)["x"], fresh["x"])
