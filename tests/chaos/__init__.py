"""Seeded chaos: access and watcher die at each failpoint while Vault, PostgreSQL and disk fail; nothing is lost."""
