"""MeanFlow models: they predict the mean velocity from a sigma of the run's list to the next.

The stochastic sampler steps along that list, so x - sigma u is where the step lands exactly, and
what it lets go of the noise and draws again is that of any model. Methods that predict beside the
list, or take earlier predictions for velocities at a point, have no such reading.
"""

import host_models as hm
import pytest
import searching as s
import torch
from torch import nn

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.method import METHODS
from flowsearch.samplers.stepping.transition import ODE, Transition

MEAN, STD = 0.3, 0.2


class FlowMap(nn.Module):
    """The exact mean velocity of independent N(MEAN, STD^2) pixels, (x_t - x_r) / (t - r)."""

    dtype = torch.float32
    time_r_in = nn.Identity()  # by this a network is known to read the list

    def forward(self, x, timestep, context=None, transformer_options=None, **_):
        del context
        run = transformer_options["sample_sigmas"].double()
        at = transformer_options["sigmas"][0].double()
        t, r = at, run[int((run == at).nonzero()[0]) + 1]
        spread = [torch.sqrt(((1 - each) * STD) ** 2 + each**2) for each in (t, r)]
        wide = x.double()
        lands = (1 - r) * MEAN + (wide - (1 - t) * MEAN) * spread[1] / spread[0]
        return ((wide - lands) / (t - r)).to(x.dtype)


def sampled(inner, steps: int, model=None):
    model = model or hm.wrap(FlowMap())
    sigmas = torch.linspace(1.0, 0.0, steps + 1)
    return hm.run(hm.guider(model), inner, sigmas, hm.empty_latent(8), 3)[0]


def off(pictures) -> float:
    """How far the pixels' spread is from the data's, of 1."""
    return abs(float(pictures.double().std()) / STD - 1.0)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_without_noise_it_is_the_hosts_euler_and_exact_in_any_number_of_steps(steps):
    ours = sampled(FlowSampler(ODE), steps)
    assert torch.equal(ours, sampled(s.sampler(), steps))
    assert off(ours) < 0.01
    assert abs(float(ours.mean()) - MEAN) < 0.01


@pytest.mark.parametrize(
    "law", [{"name": "constant_k", "k": 0.5}, {"name": "constant_k", "k": 1.0}]
)
def test_with_noise_it_comes_to_the_data_as_steps_become_many(law):
    inner = FlowSampler(Transition(noise_law(**law)))
    errors = [off(sampled(inner, steps)) for steps in (8, 32, 128)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    at_a_point = hm.gaussian_model(mean=MEAN, std=STD)
    assert errors[0] < off(sampled(inner, 8, at_a_point)), "a model of velocities is no nearer"


BETWEEN = [name for name, method in METHODS.items() if method.calls > 1 or method.memory]


@pytest.mark.parametrize("method", BETWEEN)
def test_methods_that_need_velocities_at_a_point_are_refused(method):
    with pytest.raises(ValueError, match=r"MeanFlow.*exact transition"):
        sampled(FlowSampler(Transition(noise_law("constant_k", k=0.5), method)), 6)
