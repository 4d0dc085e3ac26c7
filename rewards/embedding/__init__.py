"""Rewards by the features of an encoder of pictures, texts or sounds."""
