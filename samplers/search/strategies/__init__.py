"""Which candidates live? One file a strategy, and what several of them share."""
