"""The host's models, conditioning and patches as the mathematics sees them."""
