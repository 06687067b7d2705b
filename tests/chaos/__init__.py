"""Seeded chaos: access service and watcher die at every named point while Vault, PostgreSQL and the disk fail; nothing may be lost."""
