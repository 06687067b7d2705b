"""The local stack: real etcd, kube-apiserver, kube-controller-manager, Vault API (OpenBao) and PostgreSQL, without root or Docker.

Used by ``python -m dev.stack`` (``make up``), the demo and the tests. ``stack.py`` is what others import; nothing of the product does.
"""
