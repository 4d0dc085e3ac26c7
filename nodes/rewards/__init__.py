"""Reward nodes, one file a family: models, a prompt or targets in, a FLOW_REWARD out."""

from . import combination, embeddings, judge, language, latent, preference, shapes, statistic, text

__all__ = ["NODES"]

FAMILIES = (shapes, preference, latent, combination, embeddings, language, text, statistic, judge)

NODES = [node for family in FAMILIES for node in family.NODES]
