"""Who runs a search: items, chains, chunks, the ledger, checkpoints."""
