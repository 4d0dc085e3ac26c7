"""What the inspection of a run reports, against closed forms."""

import json
import math
from itertools import pairwise

import pytest
import torch
from fields import FLOAT64, gaussian

from flowsearch.samplers.paths.interpolant import LINEAR, VE, sigma_from_r
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import uniform
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import ODE, Transition
from flowsearch.samplers.study.inspection import Recorder, as_json, effective_k

DATA = gaussian(0.3, 0.5)
SIGMAS = uniform(200)


def run(law=None, path=LINEAR, sigmas=SIGMAS):
    """Readings of exact Gaussian sampling, two rows of many dimensions."""
    law = law or ODE.law
    generator = torch.Generator().manual_seed(0)
    recorder = Recorder(sigmas, law, path)

    def model(x, sigma):
        if path is VE:
            linear = sigma_from_r(VE, sigma)
            return DATA.denoise(x * (1 - linear), linear)
        return DATA.denoise(x, sigma)

    def noise(_):
        return torch.randn(2, 4000, generator=generator, dtype=FLOAT64)

    start = sigmas[0] * noise(0)
    end = integrate(model, start, sigmas, Transition(law), noise, recorder, path)
    return recorder.readings(end), end


def test_noise_prediction_has_the_size_of_an_exact_model():
    """E rms(e)^2 = sigma^2 / C for Gaussian data, C the variance of x: not 1 at low sigma."""
    readings, _ = run()
    for reading in readings[::20]:
        s = reading.sigma
        expected = s / math.sqrt(s**2 + (1 - s) ** 2 * 0.25)
        assert reading.noise == pytest.approx([expected] * 2, rel=0.05)
        assert reading.score == pytest.approx([n / s for n in reading.noise])


def test_predictions_form_the_picture():
    readings, end = run()
    assert readings[0].change is None
    assert readings[0].denoised == pytest.approx([0.3, 0.3], abs=0.01)
    distance = [r.distance[0] for r in readings]
    assert all(b < a for a, b in pairwise(distance))
    spread = float((end[0] - 0.3).square().mean().sqrt())
    assert distance[0] == pytest.approx(spread, rel=0.02)
    assert sum(r.change[0] for r in readings[1:]) == pytest.approx(distance[0], rel=0.05)


def test_exploding_coordinates_tell_the_same_story():
    linear = uniform(50, start=0.95)
    ratios = [s / (1 - s) for s in linear]
    here, _ = run(sigmas=linear)
    there, _ = run(path=VE, sigmas=ratios)
    for one, other in zip(here, there, strict=True):
        assert other.linear_sigma == pytest.approx(one.sigma)
        assert other.noise == pytest.approx(one.noise, rel=0.1)
        assert other.sigma > one.sigma


@pytest.mark.parametrize(("law", "k"), [("ode", 0.0), ("constant_k", 0.25), ("flow_grpo", 0.245)])
def test_effective_k_is_the_laws(law, k):
    assert effective_k(noise_law(law), 0.8, 0.6) == pytest.approx(k)
    assert effective_k(noise_law(law), 0.6, 0.8) == pytest.approx(k)


def test_effective_k_of_a_tapered_and_of_a_fixed_law():
    tapered = noise_law("constant_k", k=1.0, taper=(0.2, 0.12))
    assert effective_k(tapered, 0.12, 0.05) == pytest.approx(0.0)
    assert 0.0 < effective_k(tapered, 0.2, 0.12) < 1.0
    fixed = noise_law("fixed_q", q=0.85)
    near, far = effective_k(fixed, 0.6, 0.59), effective_k(fixed, 0.6, 0.3)
    assert near > 10.0 * far
    for ends in ((1.0, 0.5), (0.5, 0.0), (0.5, 0.5)):
        assert effective_k(tapered, *ends) is None
    assert effective_k(noise_law("fixed_q", q=0.0), 0.6, 0.5) is None


def test_json_holds_every_number():
    law = noise_law("constant_k")
    readings, _ = run(law, sigmas=uniform(5))
    data = json.loads(json.dumps(as_json(readings, law), allow_nan=False))
    assert len(data["readings"]) == 5
    assert data["noise_law"]["name"] == "constant_k"
    assert data["readings"][2]["k"] == pytest.approx(0.25)
    assert data["readings"][0]["k"] is None
