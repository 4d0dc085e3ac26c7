"""The host's guider as a search's problem, and what comes out of it."""
