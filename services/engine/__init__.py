"""The engine service: database secrets engines and their connections.

Owns ``sys/mounts/<mount>`` and ``<mount>/config/*`` in Vault and nothing else (``scope``). Only its own process and
tests import it.
"""
