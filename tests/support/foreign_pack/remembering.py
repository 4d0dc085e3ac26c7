"""Patches of a MODEL that remember earlier predictions, or mix the rows of a call."""

from collections import OrderedDict, deque

import torch


class Momentum:
    """Momentum guidance: adds a part of what the guidance was in the call before."""

    def __init__(self, strength=0.5):
        self.strength, self.before = strength, None

    def __call__(self, args):
        guidance = args["cond_denoised"] - args["uncond_denoised"]
        before = self.before
        self.before = guidance
        if before is not None:
            guidance = guidance + self.strength * before
        return args["input"] - (args["uncond_denoised"] + args["cond_scale"] * guidance)


def momentum(model, strength=0.5):
    """MODEL; its memory is an attribute, and is never put back."""
    ours = model.clone()
    ours.set_model_sampler_cfg_function(Momentum(strength))
    return ours


def sliding(model):
    """MODEL; guidance fades with the calls that were made, counted in a closure."""
    calls = 0

    def count(args):
        nonlocal calls
        calls += 1
        return args["denoised"] * (1.0 + 0.05 * calls)

    ours = model.clone()
    ours.set_model_sampler_post_cfg_function(count)
    return ours


def cached(model, threshold=0.6):
    """MODEL; TeaCache and first-block caches: where the input has hardly changed, what the network
    added before is added again. The memory is an attribute of the network."""

    def wrapper(apply, given):
        x, network = given["input"], model.model.diffusion_model
        held = getattr(network, "cache_of_a_pack", None)
        near = held is not None and held[0].shape == x.shape
        if near and float((x - held[0]).abs().mean() / held[0].abs().mean()) < threshold:
            return x + held[1]
        out = apply(x, given["timestep"], **given["c"])
        network.cache_of_a_pack = (x, out - x)
        return out

    ours = model.clone()
    ours.set_model_unet_function_wrapper(wrapper)
    return ours


def timed(model):
    """MODEL; TeaCache where what it looks at is the time alone: at the same time what the network
    added to whatever state came before is added again."""

    def wrapper(apply, given):
        x, time, network = given["input"], given["timestep"], model.model.diffusion_model
        held = getattr(network, "time_of_a_pack", None)
        if held is not None and held[0].shape == time.shape and torch.equal(held[0], time):
            return x + held[1]
        out = apply(x, time, **given["c"])
        network.time_of_a_pack = (time, out - x)
        return out

    ours = model.clone()
    ours.set_model_unet_function_wrapper(wrapper)
    return ours


def mixing(model):
    """MODEL; each row is drawn to the mean of the call."""
    ours = model.clone()
    ours.set_model_sampler_post_cfg_function(
        lambda args: args["denoised"] + 0.5 * args["denoised"].mean(dim=0, keepdim=True)
    )
    return ours


def by_step(model):
    """MODEL; guidance by the number of the step, read off the run's list of sigmas."""

    def scale(args):
        sigmas = args["model_options"]["transformer_options"]["sample_sigmas"]
        step = int((sigmas.to(args["sigma"]) - args["sigma"][0]).abs().argmin())
        return args["denoised"] * (1.0 + 0.05 * step)

    ours = model.clone()
    ours.set_model_sampler_post_cfg_function(scale)
    return ours


def harmless(model):
    """MODEL; a patch without memory."""
    ours = model.clone()
    ours.set_model_sampler_post_cfg_function(lambda args: 0.9 * args["denoised"])
    return ours


def random(model):
    """MODEL; CADS: noise of the global generator on every prediction."""
    ours = model.clone()
    ours.set_model_sampler_post_cfg_function(
        lambda args: args["denoised"] + 0.1 * torch.randn_like(args["denoised"])
    )
    return ours


class Slotted:
    """No __dict__."""

    __slots__ = ("__count", "later")

    def __init__(self):
        self.__count = 0

    def count(self, more=0):
        """What it counted, and so much more."""
        self.__count += more
        return self.__count


class Keeper:
    """Remembers what it was called with, everywhere that Python has a place for it."""

    def __init__(self):
        self.seen, self.last = {0}, deque([0], maxlen=2)
        self.order, self.slotted = OrderedDict(a=1, b=2), Slotted()
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, number):
        self.seen.add(number)
        self.last.append(number)
        self.order.pop("a", None)
        self.order["a"] = number
        self.slotted.count(number)
        torch.rand(1, generator=self.generator)

    def told(self):
        """All of it."""
        held = (sorted(self.seen), [*self.last], [*self.order.items()], self.slotted.count())
        return (*held, self.generator.get_state().tolist())
