"""Runs looked at instead of kept: inversion, likelihood, what is predicted on the way."""
