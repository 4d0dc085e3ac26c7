"""Rewards of sound."""

import sounds

CASES = {
    "clap_score": sounds.clap,
    "clap_score:fused": lambda: sounds.clap("fused"),
}
OTHER = {
    "clap_score": lambda: sounds.clap(prompt="rain"),
    "clap_score:fused": lambda: sounds.clap("fused", "rain"),
}
