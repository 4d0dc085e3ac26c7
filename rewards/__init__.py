"""Rewards: what a good picture is. Standard library, torch, numpy, scipy; never the host."""
