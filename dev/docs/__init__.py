"""Generates docs/reference and the state diagram of docs/safety.md from the code, the CRDs and the protos."""
