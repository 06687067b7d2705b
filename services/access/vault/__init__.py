"""Calls of the access service to Vault: a client for each Vault, its circuit breaker, tokens and leases."""
