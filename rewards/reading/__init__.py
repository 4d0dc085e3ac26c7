"""Rewards by words that are read in a picture."""
