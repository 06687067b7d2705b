"""The life of a lease: issue, acknowledge, renew, recover; each step is committed before the next one begins."""
