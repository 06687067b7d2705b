"""The local stack: real Kubernetes API servers, OpenBao and PostgreSQL, without root or Docker.

``python -m dev.stack`` (``make up``), the demo and the tests use it, by ``stack.py``. Services, watcher and command
lines never import it.
"""
