"""What rewards are given, by what they score: rows that differ."""

import torch


def pictures(count=3, size=64):
    """Pictures that differ: noise of different contrast on different colours."""
    generator = torch.Generator().manual_seed(5)
    contrast = torch.linspace(0.2, 1.0, count)[:, None, None, None]
    return (torch.rand(count, size, size, 3, generator=generator) - 0.5) * contrast + 0.5


def clips(count=3, frames=5):
    """Clips of such pictures."""
    return pictures(count * frames).unflatten(0, (count, frames))


def sounds(count=3, length=4000):
    """Sounds in two channels that differ: noise of different loudness."""
    generator = torch.Generator().manual_seed(6)
    loudness = torch.linspace(0.1, 0.9, count)[:, None, None]
    return (torch.rand(count, 2, length, generator=generator) * 2.0 - 1.0) * loudness


GIVEN = {
    "image": pictures,
    "video": clips,
    "audio": sounds,
    "latent": lambda count=3: pictures(count).movedim(-1, 1).contiguous(),
}
"""Domain to what its rewards score."""
