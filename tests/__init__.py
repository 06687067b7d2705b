"""Tests: unit (no sockets), contract (fakes and real servers), integration (one service, real servers), e2e, chaos."""
