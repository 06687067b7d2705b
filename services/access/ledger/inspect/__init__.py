"""Looks at a ledger file without the service: check, export, and who owns it."""
