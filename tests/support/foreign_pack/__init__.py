"""A node pack of somebody else: a node whose output fits every socket and holds what its name says,
and one that looks at the host's memory."""

import torch

from .brightness import Brightness

THINGS = {
    "none": lambda: None,
    "text": lambda: "a word",
    "negative": lambda: -3,
    "huge": lambda: 10**30,
    "nan": lambda: float("nan"),
    "infinite": lambda: float("inf"),
    "true": lambda: True,
    "empty_list": list,
    "list": lambda: [1, "two", None],
    "empty_dict": dict,
    "object": object,
    "class": lambda: dict,
    "no_samples": lambda: {"samples": None},
    "flat_samples": lambda: {"samples": torch.zeros(8)},
    "no_rows": lambda: {"samples": torch.zeros(0, 3, 64, 64)},
    "other_channels": lambda: {"samples": torch.full((1, 5, 8, 8), 0.5)},
    "not_finite_samples": lambda: {"samples": torch.full((1, 3, 64, 64), float("nan"))},
    "video_samples": lambda: {"samples": torch.zeros(1, 3, 4, 16, 16)},
    "foreign_mask": lambda: {"samples": torch.zeros(1, 3, 64, 64), "noise_mask": "mask"},
    "empty_tensor": lambda: torch.zeros(0),
    "scalar_tensor": lambda: torch.tensor(0.5),
    "rising_sigmas": lambda: torch.linspace(0.0, 1.0, 5),
    "not_finite_sigmas": lambda: torch.full((5,), float("nan")),
    "table_tensor": lambda: torch.zeros(3, 4),
    "no_pictures": lambda: torch.zeros(0, 64, 64, 3),
    "not_finite_pictures": lambda: torch.full((2, 64, 64, 3), float("nan")),
    "one_channel_pictures": lambda: torch.zeros(1, 64, 64, 1),
    "bare_conditioning": lambda: [[torch.zeros(1, 4, 8)]],
    "short_conditioning": lambda: [[torch.zeros(1, 4, 8), {}]],
}


class ForeignThing:
    """Puts out one of THINGS."""

    RETURN_TYPES = ("*",)
    FUNCTION = "make"
    CATEGORY = "foreign"

    @classmethod
    def INPUT_TYPES(cls):
        """The name of the thing."""
        return {"required": {"thing": ([*THINGS],)}}

    def make(self, thing):
        """Make it."""
        return (THINGS[thing](),)


class ForeignLoaded:
    """Tells which networks the host's memory manager holds, by the names of their classes."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "tell"
    CATEGORY = "foreign"

    @classmethod
    def INPUT_TYPES(cls):
        """Whatever is to be done before."""
        return {"optional": {"after": ("*",)}}

    @classmethod
    def IS_CHANGED(cls, **_):
        """It is another answer each time."""
        return float("nan")

    def tell(self, after=None):
        """Look."""
        from comfy.model_management import loaded_models

        found = [patcher.model for patcher in loaded_models() if patcher is not None]
        return (" ".join(type(getattr(each, "network", each)).__name__ for each in found),)


class ForeignReward:
    """A reward of somebody else's, of any name."""

    RETURN_TYPES = ("FLOW_REWARD",)
    FUNCTION = "make"
    CATEGORY = "foreign"

    @classmethod
    def INPUT_TYPES(cls):
        """Its name."""
        return {"required": {"name": ("STRING", {"multiline": True})}}

    def make(self, name):
        """Make it."""
        return (Brightness(name),)


NODE_CLASS_MAPPINGS = {
    "ForeignThing": ForeignThing,
    "ForeignLoaded": ForeignLoaded,
    "ForeignReward": ForeignReward,
}
