"""Two mechanisms of other packs at once: what was right for each is right for both.

By the stand-ins of support/foreign_pack. A few pairs by default, all of them in `dev.py soak`.
"""

import itertools
import os
import random

import graphs
import host_models as hm
import pytest
import searching as s
import torch
from foreign_pack import remembering as pack
from foreign_pack.guiders import ScheduledGuider
from foreign_pack.samplers import lying_sampler, sampler_of_global_noise

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.search.replay import Replay
from flowsearch.samplers.stepping.transition import ODE

PATCHES = {
    each.__name__: each
    for each in (
        pack.momentum,
        pack.sliding,
        pack.cached,
        pack.mixing,
        pack.by_step,
        pack.harmless,
        pack.random,
    )
}
# ours and the same of the host's
INNERS = {
    "ours": lambda: (FlowSampler(ODE), s.sampler()),
    "lying sampler": lambda: (lying_sampler(FlowSampler(ODE)), lying_sampler(s.sampler())),
    "global noise": lambda: (sampler_of_global_noise(),) * 2,
}
GUIDERS = ("scheduled guider",)
PAIRS = [
    *itertools.permutations(PATCHES, 2),
    *itertools.product(PATCHES, [*INNERS][1:]),
    *itertools.product(PATCHES, GUIDERS),
    *itertools.product(GUIDERS, [*INNERS][1:]),
]
ALL = os.environ.get("FLOWSEARCH_PAIRS") == "all"
CHOSEN = PAIRS if ALL else random.Random(1).sample(PAIRS, 3)


def graph(pair):
    """A Graph with both."""

    def patched(model):
        for name in pair:
            model = PATCHES[name](model) if name in PATCHES else model
        return model

    g = graphs.graph(patched)
    if "scheduled guider" in pair:
        conds = graphs.rows(0.8), graphs.rows(-0.5)
        g.guider = ScheduledGuider(g.model, g.sigmas, 6.0, 1.0)
        g.guider.set_conds(*conds)
    return g


def replayed(report, guider, samples):
    """How far the winner is from its replay."""
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    noise, sigmas, latent, own = Replay.execute(report, 0, 1.0).result
    out = SamplerCustomAdvanced.execute(
        noise=noise, guider=guider, sampler=own, sigmas=sigmas, latent_image=latent
    )
    return float((out[0]["samples"][0] - samples[0]).abs().max())


@pytest.mark.parametrize("pair", CHOSEN, ids=" and ".join)
def test_a_pair_is_the_hosts_run_searched_and_replayed(pair):
    ours, hosts = INNERS[next((name for name in pair if name in INNERS), "ours")]()
    g, steps = graph(pair), len(graphs.SIGMAS) - 1
    host = hm.run(graph(pair).guider, hosts, g.sigmas, g.latent, 3)[0]
    given = {"sigmas": g.sigmas, "evaluations": steps}
    plain = s.search(g.guider, ours, g.latent, **given)[0]["samples"]
    assert torch.equal(plain, host), "the plain sample is the host's"
    g = graph(pair)
    latent, _, report = s.search(g.guider, ours, g.latent, **{**given, "evaluations": 6 * steps})
    assert latent["samples"].isfinite().all()
    assert replayed(report, g.guider, latent["samples"]) < 1e-4
