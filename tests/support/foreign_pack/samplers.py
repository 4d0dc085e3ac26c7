"""Samplers as other packs make them: noise of torch's global generator, wrappers of a SAMPLER."""

import comfy.samplers
import torch


def global_noise(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler, then noise of the global generator and of one seeded from it (RES4LYF, sonar)."""
    own = torch.Generator().manual_seed(torch.initial_seed() + 1)
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
        kept = sigmas[i + 1]
        x = denoised + (x - denoised) * kept / sigmas[i]
        drawn = torch.randn(x.shape) + torch.randn(x.shape, generator=own)
        x = x + 0.1 * kept * drawn.to(x)
    return x


def sampler_of_global_noise():
    """SAMPLER."""
    return comfy.samplers.KSAMPLER(global_noise)


def lying(model, x, sigmas, *, wrapped, factor, **kwargs):
    """Detail Daemon, Lying Sigma: the wrapped one's function, with a model told other sigmas."""

    def lies(x, sigma, **extra_args):
        return model(x, sigma * (1.0 - factor * float(0.1 < float(sigma[0]) < 0.9)), **extra_args)

    for name in ("inner_model", "sigmas"):
        if hasattr(model, name):
            setattr(lies, name, getattr(model, name))
    return wrapped.sampler_function(lies, x, sigmas, **kwargs, **wrapped.extra_options)


def lying_sampler(sampler, factor=0.1):
    """SAMPLER that wraps one."""
    options = {"wrapped": sampler, "factor": factor}
    return comfy.samplers.KSAMPLER(lying, extra_options=options)
