"""Small CLAP models of the true architecture with seeded weights, in folders as transformers saves
them. Their window is a second, of sixteen bands."""

import atexit
import functools
import tempfile
from pathlib import Path

import torch
from encoders import SMALL, scattered, text, tokenizer
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from flowsearch.rewards.embedding.clap_score import ClapScore, clap_score, load
from flowsearch.rewards.weights.holder import Local

_BASE = tempfile.TemporaryDirectory(prefix="flowsearch-clap-", ignore_cleanup_errors=True)
atexit.register(_BASE.cleanup)

PROMPT = "three red circles on the table"


@functools.cache
def folder(kind: str = "unfused") -> Path:
    """A folder with config, weights, preprocessor and tokenizer.

    Args:
        kind: "unfused", or "fused" for one with feature fusion.
    """
    fused = kind == "fused"
    audio = {
        "num_mel_bins": 16, "spec_size": 64, "patch_size": 4, "patch_stride": [4, 4],
        "window_size": 4, "depths": [1, 1], "num_attention_heads": [2, 2], "num_hidden_layers": 2,
        "hidden_size": 32, "patch_embeds_hidden_size": 16, "projection_dim": 24,
        "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None,
    }  # fmt: skip
    config = ClapConfig(
        text_config=text(projection_dim=24, type_vocab_size=1, **SMALL | {"hidden_act": "gelu"}),
        audio_config=audio,
        projection_dim=24,
    )
    path = Path(_BASE.name) / f"clap-{kind}"
    with torch.random.fork_rng():
        torch.manual_seed(3)
        scattered(ClapModel(config)).save_pretrained(path)
    ClapFeatureExtractor(
        feature_size=16, max_length_s=1, truncation="fusion" if fused else "rand_trunc"
    ).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@functools.cache
def holder(kind: str = "unfused") -> Local:
    """The network of a folder."""
    return Local(load(folder(kind), torch.float32))


def clap(kind: str = "unfused", prompt: str = PROMPT) -> ClapScore:
    """The reward of a folder."""
    return clap_score(holder(kind), folder(kind), prompt)


def tones(count: int, samples: int, channels: int = 2) -> torch.Tensor:
    """Sounds (count, channels, samples) at 48 kHz that differ: rising tones under noise."""
    generator = torch.Generator().manual_seed(8)
    t = torch.arange(samples) / 48000.0
    pitch = torch.tensor([220.0 * 2.0**i for i in range(count)])[:, None, None]
    noise = torch.rand(count, channels, samples, generator=generator) * 0.2 - 0.1
    return torch.sin(2.0 * torch.pi * pitch * t * (1.0 + t)) * 0.5 + noise
