"""Nodes that look into a model: inversion, likelihood, inspection."""
