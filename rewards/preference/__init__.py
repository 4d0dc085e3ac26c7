"""Rewards that learnt from people's choices."""
