"""Rewards by faces: found, aligned, compared."""
