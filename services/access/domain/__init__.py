"""The rules of access as pure values and functions: no ledger, no Vault, no clock, no thread."""
