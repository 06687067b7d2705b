"""The real access service, one step at a time, beside an in-memory Vault; ``invariants`` checks each step."""
