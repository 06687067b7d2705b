"""Benchmarks: what Leasegate costs beside raw Vault calls on the same servers in the same run."""
