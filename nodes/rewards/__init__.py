"""Reward nodes, one file a family: models, a prompt or targets in, a FLOW_REWARD out."""

from . import (
    combination,
    detection,
    embeddings,
    judge,
    language,
    latent,
    preference,
    shapes,
    statistic,
    text,
)

__all__ = ["NODES"]

FAMILIES = (
    embeddings,
    preference,
    language,
    detection,
    text,
    judge,
    statistic,
    shapes,
    latent,
    combination,
)

NODES = [node for family in FAMILIES for node in family.NODES]
