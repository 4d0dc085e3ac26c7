"""The stochastic sampler beside everything else in the graph: by the ODE, the host's euler.

docs/WORKFLOWS.md says which test holds what.
"""

import functools

import host_models as hm
import pytest
import searching as s
import torch
from graphs import GRAPHS

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.samplers.stepping.transition import ODE

SAME = ("guidance 3, negative", "second stage")  # as they should be


def sampled(name, sampler):
    g = GRAPHS[name]()
    return hm.run(g.guider, sampler, g.sigmas, g.latent, g.seed)


@functools.cache
def usual():
    return sampled("guidance 3, negative", s.sampler())[0]


@pytest.mark.parametrize("name", GRAPHS)
def test_ode_is_the_hosts_euler_to_the_bit(name):
    host, ours = sampled(name, s.sampler()), sampled(name, FlowSampler(ODE))
    assert torch.isfinite(host[0]).all()
    assert torch.equal(ours[0], host[0])
    assert torch.equal(ours[1], host[1])
    differs = bool((host[0] - usual()).abs().max() > 1e-4)
    assert differs == (name not in SAME), "each row of the table does something"


@pytest.mark.parametrize("name", ["controlnet", "hook lora, keyframes", "perpendicular negative"])
def test_with_noise_it_is_finite_and_the_seeds(name):
    once, again = (sampled(name, s.flow())[0] for _ in range(2))
    assert torch.isfinite(once).all()
    assert torch.equal(once, again)
    assert (once - sampled(name, s.sampler())[0]).abs().max() > 0.1
