"""The nodes: the only package that imports the host."""
