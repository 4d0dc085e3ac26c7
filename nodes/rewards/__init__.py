"""Reward nodes, one file a family: models, a prompt or targets in, a FLOW_REWARD out."""

from . import combination, embeddings, language, latent, preference, shapes

__all__ = ["NODES"]

FAMILIES = (shapes, preference, latent, combination, embeddings, language)

NODES = [node for family in FAMILIES for node in family.NODES]
