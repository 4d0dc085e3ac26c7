"""The host's files and memory manager as rewards see them."""
