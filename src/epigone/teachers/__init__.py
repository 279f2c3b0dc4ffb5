"""Ask a teacher: client, limits, ledger, budget."""
