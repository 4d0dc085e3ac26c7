"""Rewards computed from pixels, without a network."""
