"""Rewards: what a good picture is. Never the host; docs/REWARDS.md says how they are built."""
