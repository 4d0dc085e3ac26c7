"""Reward nodes, one file a family: models, a prompt or targets in, a FLOW_REWARD out."""

from . import combination, latent, shapes

__all__ = ["NODES"]

FAMILIES = (shapes, latent, combination)

NODES = [node for family in FAMILIES for node in family.NODES]
