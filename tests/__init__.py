"""Tests: unit (no sockets), contract (fakes and real servers), integration (real gRPC, Vault, PostgreSQL), e2e (the guide)."""
