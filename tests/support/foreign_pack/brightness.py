"""A reward of somebody else's: it inherits from nothing and imports nothing of FlowSearch."""

from types import SimpleNamespace


class Brightness:
    """Mean of all pixels, under any name."""

    def __init__(self, name="brightness"):
        self.spec = SimpleNamespace(name=name, low=0.0, high=1.0)

    def score(self, images):
        return images.float().mean(dim=(1, 2, 3))
