"""Steps on disk: store, leases, resume, and the local executor."""
