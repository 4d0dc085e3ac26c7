"""The embedded model: network, weights, training, its language and its scenes."""
