"""Mathematics of flow samplers: torch and the standard library only, never the host.

(conventions page follows)
"""
