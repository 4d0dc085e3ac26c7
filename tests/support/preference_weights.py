"""Weights in the published layouts of PickScore, HPS and ImageReward, drawn from their names.

The names and shapes are committed (tests/data/reward_keys). A small file has the same names with
fewer layers and narrower ones; its numbers come from numpy's legacy generator, whose stream is
frozen, so that reference values can be committed too.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).resolve().parents[1] / "data"
LAYERS = 2

CLIP_SIZES = {1280: 160, 5120: 320, 3840: 480, 1024: 128, 4096: 256, 3072: 384, 49408: 96}
BLIP_SIZES = {1024: 128, 4096: 256, 3072: 384, 768: 192, 30524: 40, 512: 40}
SIZES = {"pick_score": CLIP_SIZES, "hps_v2_1": CLIP_SIZES, "image_reward": BLIP_SIZES}

VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "##dish", "bal", "##loon", "cafe"),
    *(",", ".", "of", "the", "two", "cat", "##s", "and", "dog", "photo", "on", "table", "green"),
    *("blue", "sky", "under", "sun", "##set", "in", "style", "old", "master", "\u0085", "very"),
    *("big", "small", "one"),
)
"""38 words: with the two that BLIP adds, the rows of the small word embedding."""


def published(name):
    """Names and shapes of a published file."""
    rows = json.loads((DATA / "reward_keys" / f"{name}.json").read_text(encoding="utf-8"))
    return {key: tuple(shape) for key, shape in rows["tensors"].items()}


def small(name):
    """Names and shapes of a small file of the same layout."""
    sizes = SIZES[name]
    numbered = re.compile(r"\.(?:resblocks|layers?|blocks)\.(\d+)\.")
    found = {}
    for key, shape in published(name).items():
        place = numbered.search(key)
        if place is None or key.startswith("mlp.") or int(place[1]) < LAYERS:
            found[key] = tuple(sizes.get(size, size) for size in shape)
    return found


def seeded(shapes):
    """Numbers for names and shapes."""
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("position_ids"):
            weights[name] = torch.arange(shape[-1])[None]
            continue
        normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        is_gain = len(shape) == 1 and name.endswith("weight")
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 25.0
        scaled = 1.0 + 0.2 * normal if is_gain else 1.5 * normal / np.sqrt(fan_in)
        weights[name] = torch.tensor(scaled, dtype=torch.float32)
    return weights


def picture(seed, height, width):
    """An 8-bit picture of coloured blocks with some noise, as a numpy array (H, W, 3)."""
    random = np.random.RandomState(seed)
    blocks = random.randint(0, 256, size=(-(-height // 20), -(-width // 20), 3))
    large = blocks.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    noisy = large + random.randint(-20, 21, size=large.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def images(*pictures):
    """Pictures of one size as rewards take them."""
    return torch.from_numpy(np.stack(pictures)).float() / 255.0
