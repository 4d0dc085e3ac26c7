"""Reward nodes, one file a family: models, a prompt or targets in, a FLOW_REWARD out."""

from . import (
    combination,
    detection,
    embeddings,
    faces,
    frames,
    judge,
    language,
    latent,
    layout,
    preference,
    shapes,
    sound,
    statistic,
    text,
)

__all__ = ["NODES"]

FAMILIES = (
    embeddings,
    faces,
    preference,
    language,
    detection,
    text,
    judge,
    statistic,
    layout,
    shapes,
    sound,
    latent,
    frames,
    combination,
)

NODES = [node for family in FAMILIES for node in family.NODES]
