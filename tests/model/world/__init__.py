"""The real access service, one step at a time, beside an in-memory Vault and PostgreSQL; ``invariants`` checks each step."""
