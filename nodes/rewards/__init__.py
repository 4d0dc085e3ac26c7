"""Reward nodes, one file a family: models, a prompt or targets in, a FLOW_REWARD out."""

from . import judge, shapes, statistic, text

__all__ = ["NODES"]

FAMILIES = (text, statistic, judge, shapes)

NODES = [node for family in FAMILIES for node in family.NODES]
