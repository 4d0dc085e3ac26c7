"""Rewards by boxes that a detector finds."""
