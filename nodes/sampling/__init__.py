"""Nodes that sample, convert and shape paths."""
