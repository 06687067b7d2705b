"""The calls of the access service to Vault: one client for each Vault, its circuit breaker, tokens and leases."""
