"""Small models that are models to the host: its BaseModel, its patcher, its guiders and nodes.

Only the network inside is ours: an exact field for Gaussian data, or the embedded model's network
with random weights. For tests in tests/host, where the host is importable.
"""

import importlib

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.supported_models_base
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    CFGGuider,
    DisableNoise,
    RandomNoise,
    SamplerCustomAdvanced,
)
from torch import Tensor, nn

from flowsearch.demo.network import FEATURES, Attention, Block, SceneNet

SIZE = 64
MEAN, STD = 0.3, 0.5


class GaussianNet(nn.Module):
    """Exact velocity for pixels that are independently N(mean + shift, std^2).

    shift is the mean of the conditioning row, so prompts move the data and guidance does something.
    `unit` is the host's timestep at pure noise: 1000, or 1 for Flux.
    """

    def __init__(self, mean=MEAN, std=STD, unit=1000.0, **_):
        super().__init__()
        self.dtype = torch.float32
        self.mean, self.std, self.unit = mean, std, unit
        self.calls = 0
        self.rows = 0
        self.times = []

    def denoise(self, x, t, shift=0.0):
        """The posterior mean of the data; t and shift broadcast against x."""
        mean, variance = self.mean + shift, (1 - t) ** 2 * self.std**2 + t**2
        return mean + (1 - t) * self.std**2 / variance * (x - (1 - t) * mean)

    def forward(self, x, timestep, context=None, **_):
        self.calls += 1
        self.rows += x.shape[0]
        self.times.append(float(timestep.flatten()[0]) / self.unit)
        ones = (1,) * (x.ndim - 1)
        t = (timestep.double() / self.unit).view(-1, *ones)
        shift = 0.0 if context is None else context.double().mean(dim=(1, 2)).view(-1, *ones)
        wide = x.double()
        return ((wide - self.denoise(wide, t, shift)) / t).to(x.dtype)


class GaussianPath(nn.Module):
    """Exact prediction for N(mean, std^2) pixels under any of the host's model_sampling objects.

    The network's output is what the host's own calculate_denoised() turns into D.
    """

    def __init__(self, mean=MEAN, std=STD):
        super().__init__()
        self.dtype = torch.float32
        self.mean, self.std = mean, std
        self.calls = 0
        self.sampling = None  # set by path_model()

    def forward(self, x, timestep, context=None, **_):
        self.calls += 1
        sigma = self.sampling.sigma(timestep.flatten()[:1]).to(x)
        ones = torch.ones(1, *(1,) * (x.ndim - 1))
        y = x / self.sampling.calculate_input(sigma, ones)
        shift = 0.0 if context is None else context.mean(dim=(1, 2)).view(-1, *ones.shape[1:])
        mean, s = self.mean + shift, float(sigma)
        denoised = mean + self.std**2 / (self.std**2 + s**2) * (y - mean)
        nothing = self.sampling.calculate_denoised(sigma, torch.zeros_like(y), y)
        slope = self.sampling.calculate_denoised(sigma, torch.ones_like(y), y) - nothing
        return (denoised - nothing) / slope


class SmallNet(SceneNet):
    """The embedded model's network on 8 x 8 patches: one convolution in, one block, one out.

    Nonlinear, every place looks at every other and at the prompt; a twentieth of the time.
    """

    PATCH = 4  # of what comes in, which is halved already
    WIDTH = 32

    def __init__(self, operations=nn, dtype=torch.float32):
        nn.Module.__init__(self)
        self.dtype, ops, width = dtype, operations, self.WIDTH
        values, kw = 12 * self.PATCH**2, {"dtype": dtype}
        self.time = ops.Linear(2, width, **kw)
        self.group = ops.Linear(FEATURES, width, **kw)
        self.enter = ops.Conv2d(values, width, 3, padding=1, **kw)
        self.block = Block(width, width, width, ops, **kw)
        self.attention = Attention(width, width, ops, **kw)
        self.leave = ops.Conv2d(width, values, 3, padding=1, **kw)

    def features(self, x, t, context):
        wave = torch.stack([t.sin(), t.cos()], dim=1).to(x.dtype)
        tokens = self.group(context.to(x.dtype))
        embedding = nn.functional.silu(self.time(wave) + tokens.sum(dim=1))
        h = self.enter(nn.functional.pixel_unshuffle(x, self.PATCH))
        h = self.attention(self.block(h, embedding), tokens)
        return nn.functional.pixel_shuffle(self.leave(nn.functional.silu(h)), self.PATCH)


class CleanInpaint(comfy.model_base.BaseModel):
    """A model that keeps unmasked places clean at every sigma, as Wan 2.2 and LTX-Video do."""

    def scale_latent_inpaint(self, sigma, noise, latent_image, **_):
        return latent_image


class PackedModel(comfy.model_base.BaseModel):
    """A model of several latents at once (audio and video), which the host packs into one row."""

    def extra_conds(self, **kwargs):
        shapes = comfy.conds.CONDConstant(kwargs["latent_shapes"])
        return {**super().extra_conds(**kwargs), "latent_shapes": shapes}


def wrap(
    network: nn.Module,
    kind: str = "FLOW",
    base: type = comfy.model_base.BaseModel,
    **sampling_settings,
) -> comfy.model_patcher.ModelPatcher:
    """Make a MODEL of a network.

    Args:
        network: Called as network(x, timestep, context=...); returns velocity for flow kinds.
        kind: Name in the host's ModelType: FLOW, FLUX, FLOW_COSMOS, EPS, ...
        base: The host's BaseModel or a subclass.
        **sampling_settings: shift, multiplier, noise_scale.

    Returns:
        What a loader node outputs as MODEL.
    """
    config = comfy.supported_models_base.BASE({"disable_unet_model_creation": True})
    config.latent_format = comfy.latent_formats.ChromaRadiance()
    config.sampling_settings = sampling_settings
    if kind not in comfy.model_base.ModelType.__members__:
        pytest.skip(f"this host has no models of type {kind}")
    model = base(config, model_type=comfy.model_base.ModelType[kind], device=torch.device("cpu"))
    if "noise_scale" in sampling_settings and not hasattr(model.model_sampling, "noise_scale"):
        pytest.skip("this host has no models with a noise scale")
    model.diffusion_model = network.eval().requires_grad_(False)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, device, torch.device("cpu"))


def gaussian_model(kind: str = "FLOW", mean: float = MEAN, std: float = STD, **settings):
    """MODEL whose data are independent N(mean, std^2) pixels; any latent size."""
    unit = 1.0 if kind == "FLUX" else float(settings.get("multiplier", 1000))
    return wrap(GaussianNet(mean, std, unit), kind, **settings)


def path_model(kind: str, mean: float = MEAN, std: float = STD, **settings):
    """MODEL of Gaussian pixels that samples as one of the host's kinds that are no flows."""
    model = wrap(GaussianPath(mean, std), kind, **settings)
    model.model.diffusion_model.sampling = model.model.model_sampling
    return model


def tiny_unet(family: str, seed: int = 0):
    """MODEL of a Stable Diffusion family: the host's own classes, one small block, random weights.

    Args:
        family: Name in the host's supported_models: SD15, SDXL.
        seed: Of the weights.

    Returns:
        What a loader node outputs as MODEL.
    """
    kind = getattr(comfy.supported_models, family)
    adm = {"num_classes": "sequential", "adm_in_channels": 2816} if family == "SDXL" else {}
    config = kind(
        {
            "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64,
            "num_res_blocks": [1, 1], "channel_mult": [1, 1], "transformer_depth": [0, 1],
            "transformer_depth_output": [0, 0, 1, 1], "transformer_depth_middle": 1,
            "context_dim": FEATURES, "num_heads": 2, "num_head_channels": -1,
            "use_spatial_transformer": True, "legacy": False, "dtype": torch.float32,
            "use_linear_in_transformer": False, "use_temporal_attention": False, **adm,
        }
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = config.get_model({}, "", device=torch.device("cpu"))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.05)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model.eval(), device, torch.device("cpu"))


def scene_model(seed: int = 0, **settings):
    """MODEL with a SmallNet of random weights: 3 x 64 x 64, nonlinear, with attention."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SmallNet()
    return wrap(network, **settings)


def host_node(name: str, module: str = "nodes_custom_sampler"):
    """A node of the host; the test is skipped where it has none of that name."""
    found = getattr(importlib.import_module(f"comfy_extras.{module}"), name, None)
    return found or pytest.skip(f"this host has no node {name}")


def conditioning(value: float | Tensor = 0.0, **options) -> list:
    """CONDITIONING for these models.

    Args:
        value: A number (every feature) or a tensor (rows, groups, features).
        **options: Further entries, for example start_percent.

    Returns:
        The list that the host's nodes pass around.
    """
    tensor = value if isinstance(value, Tensor) else torch.full((1, 3, FEATURES), float(value))
    return [[tensor, options]]


def guider(model, positive: float | list = 0.0, negative: float | list | None = None, cfg=1.0):
    """The host's BasicGuider, or its CFGGuider when there is a negative."""
    positive = positive if isinstance(positive, list) else conditioning(positive)
    if negative is None:
        return BasicGuider.execute(model=model, conditioning=positive)[0]
    negative = negative if isinstance(negative, list) else conditioning(negative)
    return CFGGuider.execute(model=model, positive=positive, negative=negative, cfg=cfg)[0]


def empty_latent(rows: int = 1, size: int = SIZE, channels: int = 3) -> dict:
    """LATENT of zeros."""
    return {"samples": torch.zeros(rows, channels, size, size)}


def picture_latent(rows: int = 1, size: int = SIZE, seed: int = 5) -> dict:
    """LATENT that is not empty."""
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.rand(rows, 3, size, size, generator=generator)}


def run(guider, sampler, sigmas, latent: dict, seed: int | None = 0) -> tuple[Tensor, Tensor]:
    """Run SamplerCustomAdvanced.

    Args:
        guider: GUIDER.
        sampler: SAMPLER.
        sigmas: SIGMAS, or a list of floats.
        latent: LATENT, with noise_mask and batch_index if wanted.
        seed: Noise seed; None for the node DisableNoise.

    Returns:
        The samples of `output` and of `denoised_output`.
    """
    noise = DisableNoise.execute()[0] if seed is None else RandomNoise.execute(noise_seed=seed)[0]
    if not isinstance(sigmas, Tensor):
        sigmas = torch.tensor(sigmas, dtype=torch.float32)
    out = SamplerCustomAdvanced.execute(
        noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
    )
    return out[0]["samples"], out[1]["samples"]
