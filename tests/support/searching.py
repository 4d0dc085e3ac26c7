"""What the search tests share: rewards, the pixel VAE, and the nodes with few arguments."""

import comfy.samplers
import comfy.sd
import host_models as hm
import torch
from comfy_extras.nodes_custom_sampler import RandomNoise

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.search.judge import Judge
from flowsearch.nodes.search.reward_search import RewardSearch, Search
from flowsearch.nodes.search.strategy import Strategy
from flowsearch.rewards.base import RewardSpec
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import Budget
from flowsearch.samplers.stepping.transition import Transition

NEVER = {"target": "never"}
SIGMAS = torch.tensor([1.0, 0.93, 0.81, 0.62, 0.4, 0.17, 0.0])
STEPS = len(SIGMAS) - 1


class Brightness:
    """Mean brightness of a picture; what it was given is kept."""

    def __init__(self, sign: float = 1.0, high: float = float("inf")):
        self.sign = sign
        self.spec = RewardSpec("brightness", "mean of all pixels", -1.0, high)
        self.shapes = []

    def score(self, images):
        self.shapes.append(tuple(images.shape))
        return self.sign * images.mean(dim=(1, 2, 3))


class Calling(Brightness):
    """Brightness that first calls a function with the number of the call."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.calls = 0

    def score(self, images):
        self.calls += 1
        self.function(self.calls)
        return super().score(images)


def pixel_vae():
    """VAE of pixel-space models: a shift and a scale."""
    return comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})


def sampler(name="euler"):
    """A stock SAMPLER."""
    return comfy.samplers.sampler_object(name)


def strategy(name="rbf", chains=1, rows_per_call=4, **settings):
    """FLOW_STRATEGY; few rows a call, so that chunks are seen."""
    return Strategy.execute({"strategy": name, **settings}, chains, rows_per_call)[0]


def reward_search(model, latent=None, positive=0.5, negative=0.0, **given):
    """Reward Search with small numbers; returns (LATENT, IMAGE, FLOW_REPORT)."""
    return reward_node(model, latent, positive, negative, **given).result[:3]


def reward_node(model, latent=None, positive=0.5, negative=0.0, **given):
    """Reward Search with small numbers; returns all that the node puts out."""
    conds = [c if isinstance(c, list) else hm.conditioning(c) for c in (positive, negative)]
    defaults = {
        "seed": 3,
        "steps": STEPS,
        "cfg": 1.0,
        "scheduler": "simple",
        "denoise": 1.0,
        "evaluations": 40,
        "target": NEVER,
        "vae": pixel_vae(),
        "reward": Brightness(),
    }
    return RewardSearch.execute(
        model=model,
        positive=conds[0],
        negative=conds[1],
        latent_image=latent or hm.empty_latent(),
        **{**defaults, **given},
    )


def search(guider, inner, latent=None, seed=3, sigmas=SIGMAS, **given):
    """Search with small numbers; returns (LATENT, IMAGE, FLOW_REPORT)."""
    return search_node(guider, inner, latent, seed, sigmas, **given).result[:3]


def search_node(guider, inner, latent=None, seed=3, sigmas=SIGMAS, **given):
    """Search with small numbers; returns all that the node puts out."""
    defaults = {
        "evaluations": 40,
        "target": NEVER,
        "vae": pixel_vae(),
        "reward": Brightness(),
    }
    return Search.execute(
        noise=RandomNoise.execute(noise_seed=seed)[0],
        guider=guider,
        sampler=inner,
        sigmas=sigmas,
        latent_image=latent or hm.empty_latent(),
        **{**defaults, **given},
    )


def count_rows(model):
    """Count the rows that a MODEL's network is given from now on; returns a list that grows."""
    rows = []
    model.model.diffusion_model.register_forward_pre_hook(
        lambda module, args: rows.append(args[0].shape[0])
    )
    return rows


def judge():
    """The judge of these tests."""
    return Judge(Brightness(), pixel_vae())


def budget(evaluations):
    """A budget without target."""
    return Budget(evaluations)


def flow(law="constant_k", **parameters):
    """A Stochastic Flow Sampler."""
    return FlowSampler(Transition(noise_law(law, **(parameters or {"k": 0.5}))))
