"""Seeded chaos: the access service and the watcher die at every named point while Vault, PostgreSQL and the ledger fail; nothing may be lost."""
