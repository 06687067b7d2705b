"""The role service: database roles and cleanup roles of Vault.

Owns ``<mount>/roles/*`` in Vault and reads ``sys/mounts/<mount>`` to see whose it is (``scope``). Only its own process
and tests import it.
"""
