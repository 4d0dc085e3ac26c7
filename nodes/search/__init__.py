"""Nodes that search, replay and report."""
